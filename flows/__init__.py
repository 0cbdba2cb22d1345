"""The release as Prefect flows and tasks. Mathematics and file formats are in taylor_ops."""
