//! Just enough of PostgreSQL's protocol (version 3) to commit rows with exact deadlines: no driver may hide a pause.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A row as text, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// Messages longer than this are refused.
const LONGEST: usize = 64 << 20;
const PROTOCOL_3: i32 = 196_608;

/// One connection, for simple queries. After any error it must be dropped.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
}

impl Client {
    /// Connects as a user who needs no password. `deadline` holds for the connection and for every later read and write.
    pub fn connect(address: SocketAddr, user: &str, database: &str, deadline: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, deadline).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(deadline))?;
        stream.set_write_timeout(Some(deadline))?;
        let mut client = Self { stream };
        let mut body = PROTOCOL_3.to_be_bytes().to_vec();
        for text in ["user", user, "database", database, "application_name", "ack-writer"] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        client.send(None, &body)?;
        loop {
            let (kind, body) = client.receive()?;
            match kind {
                b'R' if body.get(..4) == Some(&[0, 0, 0, 0]) => {}
                b'R' => bail!("the server wants a password; allow this client with `trust` in pg_hba.conf"),
                b'E' => bail!("{}", error_text(&body)),
                b'Z' => return Ok(client),
                _ => {}
            }
        }
    }

    /// Runs one or more statements as one transaction; rows of all of them. Returning `Ok` means: committed.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        self.send(Some(b'Q'), &body)?;
        let (mut rows, mut failure) = (Vec::new(), None);
        loop {
            let (kind, body) = self.receive()?;
            match kind {
                b'D' => rows.push(parse_row(&body).context("a damaged row from the server")?),
                b'E' => failure = Some(error_text(&body)),
                b'Z' => break,
                _ => {}
            }
        }
        failure.map_or(Ok(rows), |text| bail!("{text}"))
    }

    fn send(&mut self, kind: Option<u8>, body: &[u8]) -> Result<()> {
        let mut message = Vec::with_capacity(body.len() + 5);
        message.extend(kind);
        message.extend_from_slice(&u32::try_from(body.len() + 4).context("statement too long")?.to_be_bytes());
        message.extend_from_slice(body);
        self.stream.write_all(&message).context("send to the server")
    }

    fn receive(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0_u8; 5];
        self.stream.read_exact(&mut head).context("receive from the server")?;
        let [kind, a, b, c, d] = head;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
        if !(4..=LONGEST).contains(&length) {
            bail!("a message of {length} bytes from the server");
        }
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).context("receive from the server")?;
        Ok((kind, body))
    }
}

fn parse_row(mut body: &[u8]) -> Option<Row> {
    let (count, rest) = body.split_first_chunk::<2>()?;
    body = rest;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, rest) = body.split_first_chunk::<4>()?;
        body = rest;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            row.push(None);
            continue;
        };
        let (value, rest) = body.split_at_checked(length)?;
        body = rest;
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
    }
    Some(row)
}

/// The severity and the message of an ErrorResponse: fields of one letter and a zero-terminated text.
fn error_text(body: &[u8]) -> String {
    let field = |letter: u8| {
        body.split(|byte| *byte == 0)
            .find_map(|field| field.split_first().filter(|(first, _)| **first == letter))
            .map(|(_, text)| String::from_utf8_lossy(text).into_owned())
            .unwrap_or_default()
    };
    format!("{}: {}", field(b'S'), field(b'M'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_and_errors() {
        assert_eq!(parse_row(b"\0\x02\0\0\0\x0242\xff\xff\xff\xff"), Some(vec![Some("42".into()), None]));
        assert_eq!(parse_row(b"\0\x01\0\0\0\x0942"), None);
        assert_eq!(error_text(b"SFATAL\0C57P03\0Mstarting up\0\0"), "FATAL: starting up");
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let row = parse_row(&bytes);
            prop_assert!(row.is_none_or(|row| row.len() <= bytes.len()));
            prop_assert!(error_text(&bytes).contains(": "));
        }
    }
}
