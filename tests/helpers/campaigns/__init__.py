"""What tests of campaigns share."""
