//! Finds the ends of JSON messages in a stream of bytes, RFC 7047 §4.
//!
//! Nothing says how long a message is, so its closing bracket must be found. Each byte is looked at once, however the
//! stream is cut into chunks: parsing the buffer again after each read is quadratic (12.7 s for 8 MB in 64 KiB reads).

/// Deepest nesting that a message may have. OVSDB's own messages need 9; what a schema's comment nests is a string.
const MAX_DEPTH: u32 = 64;

/// The stream is not a sequence of acceptable JSON objects; it cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// Something other than an object stands where a message should start.
    #[error("failed to find a message: it starts with {start:?}, not with an object")]
    NoObject {
        /// Its first bytes, as text.
        start: String,
    },
    /// A message is longer than allowed.
    #[error("failed to read a message: it is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A message is nested deeper than any of OVSDB is.
    #[error("failed to read a message: it is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Cuts a stream into messages. A message is at most `limit` bytes long; that is also how much is buffered.
#[derive(Debug)]
pub struct Scanner {
    limit: usize,
    /// The start of a message whose end has not been seen.
    partial: Vec<u8>,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Scanner {
    /// A scanner at the start of a stream.
    pub fn new(limit: usize) -> Self {
        Scanner {
            limit,
            partial: Vec::new(),
            depth: 0,
            in_string: false,
            escaped: false,
        }
    }

    /// Takes the next bytes of the stream and appends the messages that end in them. Brackets are only counted: whether
    /// a message is valid JSON is for its parser to say.
    ///
    /// # Errors
    /// The stream is broken; messages that ended before are appended nevertheless.
    pub fn push(&mut self, chunk: &[u8], messages: &mut Vec<Vec<u8>>) -> Result<(), ScanError> {
        let mut start = 0;
        for (at, &byte) in chunk.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'{' | b'[' if self.depth > 0 || byte == b'{' => {
                    if self.depth == 0 {
                        start = at;
                    }
                    self.depth += 1;
                    if self.depth > MAX_DEPTH {
                        return Err(ScanError::TooDeep);
                    }
                }
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        messages.push(self.complete(&chunk[start..=at])?);
                    }
                }
                b'"' if self.depth > 0 => self.in_string = true,
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.depth == 0 => return Err(no_object(&chunk[at..])),
                _ => {}
            }
        }
        if self.depth > 0 {
            self.check_length(chunk.len() - start)?;
            self.partial.extend_from_slice(&chunk[start..]);
        }
        Ok(())
    }

    /// Number of bytes of the message that has begun and not ended.
    pub fn buffered(&self) -> usize {
        self.partial.len()
    }

    fn complete(&mut self, last: &[u8]) -> Result<Vec<u8>, ScanError> {
        self.check_length(last.len())?;
        let mut message = std::mem::take(&mut self.partial);
        message.extend_from_slice(last);
        Ok(message)
    }

    fn check_length(&self, more: usize) -> Result<(), ScanError> {
        match self.partial.len() + more > self.limit {
            true => Err(ScanError::TooLong { limit: self.limit }),
            false => Ok(()),
        }
    }
}

fn no_object(bytes: &[u8]) -> ScanError {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(24)]).into_owned();
    ScanError::NoObject { start }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(chunks: &[&[u8]], limit: usize) -> Result<Vec<String>, ScanError> {
        let (mut scanner, mut messages) = (Scanner::new(limit), Vec::new());
        for chunk in chunks {
            scanner.push(chunk, &mut messages)?;
        }
        Ok(messages
            .into_iter()
            .map(|message| String::from_utf8(message).unwrap())
            .collect())
    }

    #[test]
    fn messages_are_cut_out() {
        let found = scan(&[br#" {"a":"}\"]{"}  {"b":[{}"#, br#",1]}"#, b"\n{}{"], 100).unwrap();
        assert_eq!(found, [r#"{"a":"}\"]{"}"#, r#"{"b":[{},1]}"#, "{}"]);
    }

    #[test]
    fn rubbish_is_named() {
        let start = "HTTP/1.1 400 Bad Request".to_owned();
        assert_eq!(
            scan(&[b" HTTP/1.1 400 Bad Request\r\n"], 100),
            Err(ScanError::NoObject { start })
        );
        assert!(matches!(
            scan(&[b"[1]"], 100),
            Err(ScanError::NoObject { .. })
        ));
        assert!(matches!(
            scan(&[b"}"], 100),
            Err(ScanError::NoObject { .. })
        ));
        assert_eq!(scan(&[b"{", &[b'['; 70]], 100), Err(ScanError::TooDeep));
    }

    #[test]
    fn the_limit_holds_however_the_bytes_come() {
        assert_eq!(scan(&[br#"{"a":1}"#], 7).unwrap().len(), 1);
        assert_eq!(
            scan(&[br#"{"a":12}"#], 7),
            Err(ScanError::TooLong { limit: 7 })
        );
        assert_eq!(
            scan(&[br#"{"a":"#, b"12}"], 7),
            Err(ScanError::TooLong { limit: 7 })
        );
        assert_eq!(
            scan(&[br#"{"a":"#, b"1    "], 7),
            Err(ScanError::TooLong { limit: 7 })
        );
        assert_eq!(scan(&[br#"{"a":1}{"a":1}"#], 7).unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(
            values in proptest::collection::vec(("[\\PC\"\\\\{}\\[\\]]{0,12}", 0u8..3), 1..6),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let messages: Vec<String> = values.iter().map(|(text, depth)| {
                let nested = (0..*depth).fold(serde_json::json!(text), |inner, _| serde_json::json!([inner, {}]));
                serde_json::json!({"k": nested}).to_string()
            }).collect();
            let stream = messages.join(" ").into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(scan(&chunks, 1000).unwrap(), messages);
        }

        #[test]
        fn any_bytes_are_survived(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..6)) {
            let (mut scanner, mut messages) = (Scanner::new(64), Vec::new());
            for chunk in &chunks {
                if scanner.push(chunk, &mut messages).is_err() { break; }
                prop_assert!(scanner.buffered() <= 64);
            }
        }
    }
}
