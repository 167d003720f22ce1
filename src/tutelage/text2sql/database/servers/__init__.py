"""Statements on PostgreSQL, MySQL, MariaDB and DuckDB: what may run there, and how it runs."""
