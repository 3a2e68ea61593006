//! Certificates that come by themselves.

mod acme;
