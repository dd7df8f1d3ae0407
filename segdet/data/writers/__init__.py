"""Writers from records to folder layouts, one file each: the other direction of `formats`."""
