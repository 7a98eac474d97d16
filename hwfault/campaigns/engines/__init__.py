"""How trials of a campaign are computed: engines that answer with the outputs of every trial and image."""
