"""The revision function: increases the revision of each batch whose jobs change."""
