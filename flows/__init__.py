"""The release as Prefect flows and tasks. No mathematics, no file formats: those are in taylor_ops."""
