//! MAC addresses.

use std::fmt;
use std::str::FromStr;

/// A 48-bit MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac([u8; 6]);

/// Why a text is no [`Mac`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to read {text:?} as a MAC address")]
pub struct MacError {
    text: String,
}

impl Mac {
    /// Reads six bytes.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Mac)
    }

    /// The six bytes.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

/// Six lower-case hexadecimal pairs.
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = || MacError {
            text: text.to_owned(),
        };
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|p| p.len() == 2).ok_or_else(error)?;
            *byte = hex(pair).ok_or_else(error)?;
        }
        match pairs.next() {
            None => Ok(Mac(bytes)),
            Some(_) => Err(error()),
        }
    }
}

/// Unlike `u8::from_str_radix`, without a sign.
fn hex(pair: &str) -> Option<u8> {
    let digits = pair.bytes().all(|b| b.is_ascii_hexdigit());
    u8::from_str_radix(pair, 16).ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mac: Mac = "0a:00:0A:00:01:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "0a:00:0a:00:01:ff");
        for bad in [
            "",
            "0a",
            "0a:00:0a:00:01",
            "0a:00:0a:00:01:ff:00",
            "0a:00:0a:00:01:+f",
            "x",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
