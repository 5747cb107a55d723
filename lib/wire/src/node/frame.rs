//! What does a message look like: a JSON line with the length of the payload, then the payload.
//!
//! `{"len":5,"body":{"answer":"out"}}\n` and five bytes.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest line, with its newline.
pub const HEAD_LIMIT: usize = 64 * 1024;
/// Longest payload.
pub const PAYLOAD_LIMIT: usize = 1024 * 1024;

/// Why bytes are no message. The conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a message's head is longer than {HEAD_LIMIT} bytes")]
    HeadTooLong,
    #[error("a payload of {0} bytes is longer than {PAYLOAD_LIMIT}")]
    PayloadTooLong(u64),
    #[error("a message is not understood: {0}; both nodes must have the same version of sk")]
    Head(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Head<T> {
    #[serde(default)]
    len: u64,
    body: T,
}

/// Appends a message to `out`.
pub fn put<T: Serialize>(out: &mut Vec<u8>, body: &T, payload: &[u8]) -> Result<(), FrameError> {
    if payload.len() > PAYLOAD_LIMIT {
        return Err(FrameError::PayloadTooLong(payload.len() as u64));
    }
    let head = serde_json::to_vec(&Head { len: payload.len() as u64, body })?;
    if head.len() >= HEAD_LIMIT {
        return Err(FrameError::HeadTooLong);
    }
    out.extend_from_slice(&head);
    out.push(b'\n');
    out.extend_from_slice(payload);
    Ok(())
}

/// A message, its payload, and how many bytes they take together.
pub type Taken<'a, T> = (T, &'a [u8], usize);

/// The first message of `bytes`. None: more are needed.
pub fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<Taken<'_, T>>, FrameError> {
    let window = bytes.get(..HEAD_LIMIT).unwrap_or(bytes);
    let Some(end) = window.iter().position(|b| *b == b'\n') else {
        return if window.len() == HEAD_LIMIT { Err(FrameError::HeadTooLong) } else { Ok(None) };
    };
    let head: Head<T> = serde_json::from_slice(bytes.get(..end).unwrap_or_default())?;
    let length = usize::try_from(head.len).unwrap_or(usize::MAX);
    if length > PAYLOAD_LIMIT {
        return Err(FrameError::PayloadTooLong(head.len));
    }
    let from = end + 1;
    Ok(bytes.get(from..from + length).map(|payload| (head.body, payload, from + length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Answer, Ask};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_is_refused_or_waited_for(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = take::<Ask>(&bytes);
            let _ = take::<Answer>(&bytes);
        }

        #[test]
        fn lines_that_look_right(len in any::<u64>(), kind in "facts|run|cluster|key|module|part|x", tail in "\\PC{0,60}") {
            let line = format!("{{\"len\":{len},\"body\":{{\"ask\":\"{kind}\",{tail}}}}}\n");
            if let Ok(found) = take::<Ask>(line.as_bytes()) {
                prop_assert!(len <= PAYLOAD_LIMIT as u64 && (found.is_some() == (len == 0)));
            }
        }

        #[test]
        fn messages_pass_however_they_are_cut(payload in prop::collection::vec(any::<u8>(), 0..200), last: bool, cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            put(&mut bytes, &Ask::Part { last }, &payload).unwrap();
            let whole = bytes.len();
            put(&mut bytes, &Ask::Part { last: !last }, b"next").unwrap();
            prop_assert!(take::<Ask>(&bytes[..cut.index(whole)]).unwrap().is_none());
            prop_assert_eq!(take::<Ask>(&bytes).unwrap(), Some((Ask::Part { last }, payload.as_slice(), whole)));
        }
    }

    #[test]
    fn nothing_grows_without_bound() {
        assert!(matches!(take::<Ask>(&vec![b'x'; HEAD_LIMIT]), Err(FrameError::HeadTooLong)));
        assert!(take::<Ask>(&vec![b'x'; HEAD_LIMIT - 1]).unwrap().is_none());
        let mut out = Vec::new();
        assert!(put(&mut out, &Ask::Part { last: true }, &vec![0; PAYLOAD_LIMIT + 1]).is_err());
        let deep = format!("{}\n", "[".repeat(60_000));
        assert!(take::<Ask>(deep.as_bytes()).is_err());
    }
}
