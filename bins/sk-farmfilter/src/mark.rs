//! What do packet marks of the filter mean, and which bucket has a client? Pure.
//!
//! A mark lives from the ingress of a packet to the input of the IP stack and is zero again before anybody else's input
//! rules see the packet. Layout: `0x5a`, group, class, bucket, one byte each.

use crate::spec::Key;
use net::jhash;
use std::net::IpAddr;

/// Of all hashes of the filter; every node of every farm must use the same.
pub const SEED: u32 = 0x5afe;
/// What the top byte of a mark of ours is.
pub const BASE: u32 = 0x5a00_0000;

/// Of a packet that may concern any node, and goes on to all others from a directed one; no group has this number.
pub const FOR_ALL: u32 = BASE | 0x00ff_0001;

/// How a packet of a bucket is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Ours, and nobody else has old connections in it: everything is accepted, and what belongs to no connection is
    /// reset by the kernel, which is what clients of a dead node need.
    Own,
    /// Ours, but others may have old connections in it: only connections that are here, and new ones.
    Gained,
    /// Given away: only connections that are here.
    Legacy,
}

/// What the hash of a group's rules gives for a bucket.
pub fn bucket_mark(group: usize, bucket: u8) -> u32 {
    BASE | (group as u32 & 0xff) << 16 | u32::from(bucket)
}

/// What a packet of a bucket bears until it reaches the input.
pub fn class_mark(group: usize, bucket: u8, class: Class) -> u32 {
    match class {
        Class::Own => 0,
        Class::Gained => bucket_mark(group, bucket) | 0x100,
        Class::Legacy => bucket_mark(group, bucket) | 0x200,
    }
}

/// The bucket of a client, as the kernel's rules compute it. `None`: a port or identification is needed.
pub fn bucket_of(key: Key, client: IpAddr, port: Option<u16>, ipid: Option<u16>) -> Option<u8> {
    let mut bytes = Vec::with_capacity(20);
    match key {
        Key::Addr => push(&mut bytes, client),
        Key::Port => {
            push(&mut bytes, client);
            // Every part of a concatenation fills whole registers of four bytes.
            bytes.extend_from_slice(&port?.to_be_bytes());
            bytes.extend_from_slice(&[0, 0]);
        }
        Key::Ipid => bytes.extend_from_slice(&ipid?.to_be_bytes()),
    }
    u8::try_from(jhash::bucket(&bytes, SEED, 256)).ok()
}

fn push(bytes: &mut Vec<u8>, client: IpAddr) {
    match client {
        IpAddr::V4(v4) => bytes.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes.extend_from_slice(&v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_name_group_class_and_bucket() {
        assert_eq!(bucket_mark(3, 0xab), 0x5a03_00ab);
        assert_eq!(class_mark(3, 0xab, Class::Gained), 0x5a03_01ab);
        assert_eq!(class_mark(3, 0xab, Class::Legacy), 0x5a03_02ab);
        assert_eq!(class_mark(3, 0xab, Class::Own), 0);
    }

    #[test]
    fn what_a_key_needs_must_be_given() {
        let client = "192.0.2.7".parse().unwrap();
        assert!(bucket_of(Key::Addr, client, None, None).is_some());
        assert!(bucket_of(Key::Port, client, None, None).is_none());
        assert!(bucket_of(Key::Ipid, client, Some(1), None).is_none());
    }
}
