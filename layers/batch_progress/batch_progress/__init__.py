"""Progress of scrape batches: what a batch's job items add up to, and when it will be done."""
