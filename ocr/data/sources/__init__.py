"""What people have instead of a labels file of ours: each source yields entries, see `ocr.data.entries`."""
