//! Addresses as the API writes them: families and ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A family of addresses.
#[derive(
    JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    Ipv4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    Ipv6,
}

impl Family {
    /// Both families, in the order in which they are listed everywhere.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of an address.
    pub fn of(ip: impl Into<IpAddr>) -> Self {
        match ip.into() {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// Its name as in `EndpointSlice.addressType` and `Service.spec.ipFamilies`: `IPv4` or `IPv6`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    /// The family of this name, see [`Self::name`].
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// Bits of an address: 32 or 128. The prefix length of a single address.
    pub fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An inclusive range of addresses of one family: `10.0.1.9` or `10.0.1.200-10.0.1.254`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range<A = IpAddr> {
    /// First address.
    pub first: A,
    /// Last address, of the same family and not before `first`.
    pub last: A,
}

/// A range of IPv4 addresses only.
pub type Ipv4Range = Range<Ipv4Addr>;

impl<A: Ord> Range<A> {
    /// Whether `ip` lies in the range.
    pub fn contains(&self, ip: A) -> bool {
        self.first <= ip && ip <= self.last
    }
}

/// Why a text is no [`Range`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address or range; write 10.0.1.9 or 10.0.1.200-10.0.1.254")]
pub struct RangeError {
    /// The text.
    pub text: String,
}

impl<A: FromStr + Ord + Copy + Into<IpAddr>> FromStr for Range<A> {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let error = || RangeError {
            text: text.to_owned(),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first: A = first.trim().parse().map_err(|_| error())?;
        let last: A = last.trim().parse().map_err(|_| error())?;
        if last < first || Family::of(first) != Family::of(last) {
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
        assert!("fd00::1".parse::<Ipv4Range>().is_err());
    }

    #[test]
    fn a_range_is_of_one_family() {
        let range: Range = "fd00::9-fd00::ff".parse().unwrap();
        assert!(range.contains("fd00::a".parse().unwrap()));
        assert!(!range.contains("10.0.1.9".parse().unwrap()));
        assert!("10.0.1.9-10.0.1.11".parse::<Range>().is_ok());
        assert!("10.0.1.9-fd00::1".parse::<Range>().is_err());
        assert!("fd00::1-fd00::".parse::<Range>().is_err());
    }

    #[test]
    fn families_have_their_kubernetes_names() {
        for family in Family::ALL {
            assert_eq!(Family::named(family.name()), Some(family));
        }
        assert_eq!(Family::named("FQDN"), None);
    }
}
