//! IPv4 ranges as the API writes them.

use std::net::Ipv4Addr;
use std::str::FromStr;

/// An inclusive range of IPv4 addresses: `10.0.1.9` or `10.0.1.200-10.0.1.254`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ipv4Range {
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, not before `first`.
    pub last: Ipv4Addr,
}

impl Ipv4Range {
    /// Whether `ip` lies in the range.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        self.first <= ip && ip <= self.last
    }
}

/// Why a text is no [`Ipv4Range`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no IPv4 address or range; write 10.0.1.9 or 10.0.1.200-10.0.1.254")]
pub struct RangeError {
    /// The text.
    pub text: String,
}

impl FromStr for Ipv4Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let error = || RangeError {
            text: text.to_owned(),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first = first.trim().parse().map_err(|_| error())?;
        let last = last.trim().parse().map_err(|_| error())?;
        if last < first {
            return Err(error());
        }
        Ok(Self { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_inclusive_and_ordered() {
        let range: Ipv4Range = "10.0.1.200-10.0.1.254".parse().unwrap();
        assert!(range.contains(Ipv4Addr::new(10, 0, 1, 254)));
        assert!(!range.contains(Ipv4Addr::new(10, 0, 1, 199)));
        assert!("10.0.1.9-10.0.1.1".parse::<Ipv4Range>().is_err());
        assert!("10.0.1".parse::<Ipv4Range>().is_err());
    }
}
