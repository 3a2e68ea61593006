//! Certificates, those that come by themselves and those of clients, and what is agreed on with clients.

mod acme;
mod clients;
mod files;
mod insist;
mod origins;
mod scan;
