//! Whether an address is one of this machine's.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::net::UdpSocket;

/// Whether this machine has no such address now, so that nothing could listen there.
#[must_use]
pub fn is_absent(address: IpAddr) -> bool {
    // Nobody sees a socket for datagrams on a port of the system's choice.
    UdpSocket::bind((address, 0)).is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn loopback_is_ours_and_a_documents_address_is_not() {
        assert!(!is_absent(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_absent(Ipv4Addr::UNSPECIFIED.into()));
        assert!(is_absent(Ipv4Addr::new(192, 0, 2, 1).into()));
    }
}
