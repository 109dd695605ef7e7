//! `fluyt-registry`: stores and serves images over the OCI distribution API.
