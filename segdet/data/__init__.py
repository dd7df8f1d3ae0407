"""From folders on disk to records, arrays and batches."""
