//! What a look-up finds: addresses, and which of them records put before others.

use pingora::protocols::l4::socket::SocketAddr;

/// An address that a backend stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Where.
    pub(super) address: SocketAddr,
    /// How many ranks of the same records go before it: it serves only while none of those can.
    pub(super) step: u16,
    /// Its share, where records say it and not the configuration.
    pub(super) weight: Option<u32>,
}

impl Found {
    /// In order, each address once: at the best of its places.
    pub(super) fn sorted(mut all: Vec<Self>) -> Vec<Self> {
        all.sort_by(|one, other| {
            let of = |found: &Self| (found.step, std::cmp::Reverse(found.weight));
            one.address.cmp(&other.address).then_with(|| of(one).cmp(&of(other)))
        });
        all.dedup_by(|later, first| later.address == first.address);
        all
    }
}

impl From<SocketAddr> for Found {
    fn from(address: SocketAddr) -> Self {
        Self { address, step: 0, weight: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_found_twice_keeps_its_best_place() {
        let at = |port: u16, step, weight| Found {
            address: SocketAddr::Inet(([192, 0, 2, 1], port).into()),
            step,
            weight: Some(weight),
        };
        let all = vec![at(2, 1, 9), at(1, 0, 3), at(2, 0, 1), at(2, 0, 5)];
        assert_eq!(Found::sorted(all), [at(1, 0, 3), at(2, 0, 5)]);
    }
}
