"""The progress of scrape batches: counts from the job items, and a forecast of the end."""
