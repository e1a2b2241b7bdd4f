//! At which of its addresses peers can reach this process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// The address of this end, as the coordinator's network sees it: what peers can reach this process at.
pub(crate) fn local_ip(address: &str) -> IpAddr {
    let target = address
        .trim_start_matches("http://")
        .trim_start_matches("https://")
        .trim_end_matches('/');
    // Connecting a datagram socket only asks the system for the way: nothing is sent, nobody is waited for, and it
    // does not matter whether the coordinator is there.
    let way = || {
        let to = target.to_socket_addrs().ok()?.next()?;
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    way().unwrap_or(Ipv4Addr::LOCALHOST.into())
}
