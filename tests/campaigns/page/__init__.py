"""The page of a campaign, from stores written by hand."""
