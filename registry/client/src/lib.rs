//! A client of the OCI distribution API that both `fluyt` and `fluyt-registry` use.
