"""Reports: README, pictures and notebook, made from finished runs."""
