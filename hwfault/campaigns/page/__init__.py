"""The page of a campaign and its pictures, made from the store alone."""
