"""Boxes, polygons, masks, run lengths and regions: shapes in pixels."""
