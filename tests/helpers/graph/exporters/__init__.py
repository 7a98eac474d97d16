"""Small graphs as exporters write them that hwfault does not control, each made from code when a test asks for it."""
