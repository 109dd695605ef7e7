//! Who is at the other end, and under which address the registry is known to them: the connection says so, or a proxy
//! that is trusted. Pure.
//!
//! Of `Forwarded` (RFC 7239) and `X-Forwarded-For`, `-Proto` and `-Host` the entries are read from their end: each was
//! added by whoever is named by the next, and the first that no trusted proxy vouches for is the client.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use http::header::{FORWARDED, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Most proxies in a row that are looked at.
const HOPS_MAX: usize = 16;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// Addresses that share their first bits: `10.0.0.0/8`, or a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no network: expected an address or a network, such as 10.0.0.0/8 or ::1");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let first: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { first, bits })
    }
}

impl Network {
    /// Whether `address` is one of them. An IPv4 address in IPv6's clothes is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, plain(address)) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                first.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                first.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Who asks, and whom they asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// `None` in process, where there is no connection.
    pub(super) address: Option<IpAddr>,
    /// Whether a trusted proxy stands between, so that its other headers may be believed too.
    pub(super) through_proxy: bool,
    pub(super) https: bool,
    /// Whether somebody who is not trusted says that the client came by HTTPS: a proxy that was not named, most likely. Good
    /// for nothing but to keep passwords off the wire.
    pub(super) claims_https: bool,
    /// Host and port as the client spelled them.
    pub(super) host: Option<String>,
}

impl Client {
    pub(super) fn of(head: &Parts, trusted: &[Network]) -> Self {
        let peer = head.extensions.get::<Peer>();
        let asked = head.uri.authority().map(Authority::as_str);
        let host = asked.or_else(|| head.headers.get(HOST)?.to_str().ok()).and_then(host);
        let direct = Self {
            address: peer.map(|peer| plain(peer.address.ip())),
            through_proxy: false,
            https: peer.is_some_and(|peer| peer.tls),
            claims_https: false,
            host,
        };
        let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
        match direct.address {
            Some(address) if is_trusted(address) => direct.behind(&head.headers, is_trusted),
            _ => Self { claims_https: claims_https(&head.headers), ..direct },
        }
    }

    /// What the headers of a trusted proxy add.
    fn behind(mut self, headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Self {
        self.through_proxy = true;
        // A proxy writes one kind, mostly `X-Forwarded-*`, and hands on as it came what it does not know.
        let has_other = [&FOR, &PROTO, &FORWARDED_HOST].into_iter().any(|name| headers.contains_key(name));
        let hops = if has_other { x_forwarded(headers) } else { forwarded(headers) };
        for hop in hops.iter().rev().take(HOPS_MAX) {
            if let Some(https) = hop.https {
                self.https = https;
            }
            if let Some(host) = &hop.host {
                self.host = Some(host.clone());
            }
            // What is hidden or unreadable stays unknown: the proxy that said so is the nearest that is known.
            let Some(address) = hop.address else { break };
            self.address = Some(address);
            if !is_trusted(address) {
                break;
            }
        }
        self
    }
}

/// What one proxy said.
#[derive(Debug, Default)]
struct Hop {
    address: Option<IpAddr>,
    https: Option<bool>,
    host: Option<String>,
}

fn claims_https(headers: &HeaderMap) -> bool {
    values(headers, &PROTO).any(|value| https(value.trim()) == Some(true))
        || forwarded(headers).iter().any(|hop| hop.https == Some(true))
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','))
}

/// `Forwarded: for=192.0.2.43;proto=https;host=registry.example, for="[2001:db8::1]:4711"`.
fn forwarded(headers: &HeaderMap) -> Vec<Hop> {
    let hop = |element: &str| {
        let mut hop = Hop::default();
        for pair in element.split(';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "for" => hop.address = address(value),
                "proto" => hop.https = https(value),
                "host" => hop.host = host(value),
                _ => {}
            }
        }
        hop
    };
    values(headers, &FORWARDED).map(hop).collect()
}

/// One list for each fact. Proxies that add no scheme or host leave shorter lists than that of addresses.
fn x_forwarded(headers: &HeaderMap) -> Vec<Hop> {
    let mut hops: Vec<Hop> =
        values(headers, &FOR).map(|value| Hop { address: address(value.trim()), ..Hop::default() }).collect();
    if hops.is_empty() {
        hops.push(Hop::default());
    }
    // The nearest proxy that names them speaks for all of the way: it is the one that is trusted.
    if let Some(last) = hops.last_mut() {
        last.https = values(headers, &PROTO).last().and_then(|value| https(value.trim()));
        last.host = values(headers, &FORWARDED_HOST).last().and_then(|value| host(value.trim()));
    }
    hops
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(address, _)| address);
    let address = match bare {
        Some(address) => address.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        None => text.parse().ok().or_else(|| text.parse::<SocketAddr>().map(|address| address.ip()).ok()),
    };
    address.map(plain)
}

fn https(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "https" => Some(true),
        "http" => Some(false),
        _ => None,
    }
}

/// A host with or without a port, if that is all it is: it is sent back inside a quoted string.
fn host(text: &str) -> Option<String> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b".-_:[]".contains(&c);
    (!text.is_empty() && text.len() <= 255 && text.bytes().all(fits)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// Address, scheme and host, for a request from 10.0.0.1 that trusts `10.0.0.0/8`.
    fn seen(peer: &str, headers: &[(&str, &str)]) -> String {
        let mut request = Request::builder().uri("/v2/").header("host", "inner:5000");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        head.extensions.insert(Peer { address: SocketAddr::new(peer.parse().unwrap(), 1), tls: false });
        let client = Client::of(&head, &["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let scheme = if client.https { "https" } else { "http" };
        format!("{} {scheme}://{}", client.address.unwrap(), client.host.unwrap_or_default())
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let headers =
            [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "r.example")];
        assert_eq!(seen("203.0.113.1", &headers), "203.0.113.1 http://inner:5000");
        assert_eq!(seen("10.0.0.1", &headers), "192.0.2.7 https://r.example");
        assert_eq!(seen("::ffff:10.0.0.1", &headers), "192.0.2.7 https://r.example");
        assert_eq!(seen("fd00::1", &headers), "192.0.2.7 https://r.example");
        assert_eq!(seen("10.0.0.1", &headers[1..2]), "10.0.0.1 https://inner:5000");
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1 http://inner:5000");
    }

    #[test]
    fn a_client_cannot_name_itself() {
        let names_itself = "1.1.1.1, 192.0.2.7, 10.0.0.9";
        assert_eq!(seen("10.0.0.1", &[("x-forwarded-for", names_itself)]), "192.0.2.7 http://inner:5000");
        let twice = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(seen("10.0.0.1", &twice), "192.0.2.7 http://inner:5000");
        let unreadable = [("x-forwarded-for", "1.1.1.1, nonsense")];
        assert_eq!(seen("10.0.0.1", &unreadable), "10.0.0.1 http://inner:5000");
        let handed_on = [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(seen("10.0.0.1", &handed_on), "192.0.2.7 http://inner:5000");
        let handed_on = [("forwarded", "for=1.1.1.1"), ("x-forwarded-proto", "https")];
        assert_eq!(seen("10.0.0.1", &handed_on), "10.0.0.1 https://inner:5000");
        let forwarded = [("forwarded", "for=1.1.1.1;host=evil, for=192.0.2.7;proto=https;host=r.example")];
        assert_eq!(seen("10.0.0.1", &forwarded), "192.0.2.7 https://r.example");
    }

    #[test]
    fn addresses_come_in_many_shapes() {
        for (given, expected) in [
            ("for=192.0.2.7", "192.0.2.7"),
            ("For=\"192.0.2.7:4711\"", "192.0.2.7"),
            ("for=\"[2001:db8::7]:4711\"", "2001:db8::7"),
            ("for=\"[2001:db8::7]\"; proto=http", "2001:db8::7"),
            ("for=_hidden", "10.0.0.1"),
            ("for=unknown", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            let expected = format!("{expected} http://inner:5000");
            assert_eq!(seen("10.0.0.1", &[("forwarded", given)]), expected, "{given}");
        }
        let odd = [("x-forwarded-host", "r\"; x"), ("x-forwarded-proto", "gopher")];
        assert_eq!(seen("10.0.0.1", &odd), "10.0.0.1 http://inner:5000");
    }

    #[test]
    fn networks() {
        let contains =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.1.0.0/16", "10.1.255.255") && !contains("10.1.0.0/16", "10.2.0.0"));
        assert!(contains("0.0.0.0/0", "8.8.8.8") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "::1") && contains("2001:db8::/32", "2001:db8:1::1"));
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/-1", "x/8"] {
            assert!(wrong.parse::<Network>().unwrap_err().contains("such as 10.0.0.0/8"), "{wrong}");
        }
    }
}
