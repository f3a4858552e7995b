"""From a scan to its age and maps."""
