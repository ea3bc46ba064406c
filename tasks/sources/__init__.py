"""Where rows come from: files, S3, HTTP, databases."""
