//! A network of its own for the nodes of a cluster: each in a network namespace, all on one bridge, this process at its side as
//! the clients are. Packets are dropped at whoever receives them, so that a cut has a direction.
//!
//! It needs root, `ip` (iproute2) and `iptables`; [`Network::create`] says what is missing. The bridge has a namespace too:
//! in the machine's own one a firewall may filter what is forwarded.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// Networks lie side by side in a range that is meant for tests (RFC 2544).
const SUBNETS: u32 = 250;

/// What of the traffic between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Everything.
    All,
    /// TCP to or from this port.
    Port(u16),
}

/// Namespaces on a bridge. Dropped, they go; end the processes in them before.
#[derive(Debug)]
pub struct Network {
    switch: String,
    namespaces: Vec<String>,
    addresses: Vec<String>,
    /// This process's end of its cable, and its address.
    link: String,
    address: String,
}

fn run(words: &[&str]) -> Result<()> {
    let output = Command::new(words[0]).args(&words[1..]).output().with_context(|| {
        format!(
            "cannot run {}: partitions need iproute2 and iptables (apt-get install iproute2 iptables)",
            words[0]
        )
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}; partitions need root and network namespaces", words.join(" "), said.trim());
    }
    Ok(())
}

impl Network {
    /// Makes a network with so many members.
    pub fn create(members: usize) -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let (process, serial) = (std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let subnet = (process + serial) % SUBNETS;
        let name = |what: &str| format!("ottla-test-{process}-{serial}-{what}");
        let mut network = Self {
            switch: name("switch"),
            namespaces: Vec::new(),
            addresses: Vec::new(),
            link: format!("ot{process}x{serial}"),
            address: format!("198.18.{subnet}.254"),
        };
        run(&["ip", "netns", "add", &network.switch])?;
        let switch = network.switch.clone();
        run(&["ip", "-n", &switch, "link", "add", "bridge", "type", "bridge"])?;
        run(&["ip", "-n", &switch, "link", "set", "bridge", "up"])?;
        for member in 1..=members {
            let (namespace, port) = (name(&member.to_string()), format!("port{member}"));
            let address = format!("198.18.{subnet}.{member}");
            run(&["ip", "netns", "add", &namespace])?;
            network.namespaces.push(namespace.clone());
            let of_switch = ["ip", "-n", &switch, "link", "add", &port];
            run(&[&of_switch[..], &["type", "veth", "peer", "name", "eth0", "netns", &namespace]].concat())?;
            run(&["ip", "-n", &namespace, "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
            run(&["ip", "-n", &namespace, "link", "set", "lo", "up"])?;
            run(&["ip", "-n", &namespace, "link", "set", "eth0", "up"])?;
            network.plug(&port)?;
            network.addresses.push(address);
        }
        run(&[
            "ip",
            "link",
            "add",
            &network.link,
            "type",
            "veth",
            "peer",
            "name",
            "port0",
            "netns",
            &switch,
        ])?;
        run(&["ip", "address", "add", &format!("{}/24", network.address), "dev", &network.link])?;
        run(&["ip", "link", "set", &network.link, "up"])?;
        network.plug("port0")?;
        Ok(network)
    }

    fn plug(&self, port: &str) -> Result<()> {
        run(&["ip", "-n", &self.switch, "link", "set", port, "master", "bridge", "up"])
    }

    /// The members' addresses.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// What runs a program in a member's namespace.
    pub fn runner(&self, member: usize) -> [&str; 4] {
        ["ip", "netns", "exec", &self.namespaces[member]]
    }

    fn in_member(&self, member: usize, words: &[&str]) -> Result<()> {
        run(&[&self.runner(member)[..], words].concat())
    }

    fn drop_from(&self, source: &str, to: usize, traffic: Traffic) -> Result<()> {
        let rule = ["iptables", "-w", "-A", "INPUT", "-s", source];
        match traffic {
            Traffic::All => self.in_member(to, &[&rule[..], &["-j", "DROP"]].concat()),
            Traffic::Port(port) => ["--sport", "--dport"].into_iter().try_for_each(|side| {
                let port = port.to_string();
                self.in_member(to, &[&rule[..], &["-p", "tcp", side, &port, "-j", "DROP"]].concat())
            }),
        }
    }

    /// What `from` sends does not reach `to` any more.
    pub fn cut(&self, from: usize, to: usize, traffic: Traffic) -> Result<()> {
        self.drop_from(&self.addresses[from], to, traffic)
    }

    /// Nothing between the two any more.
    pub fn cut_both_ways(&self, one: usize, other: usize, traffic: Traffic) -> Result<()> {
        self.cut(one, other, traffic)?;
        self.cut(other, one, traffic)
    }

    /// Nothing between the member and all other members any more. Clients reach it.
    pub fn isolate(&self, member: usize, traffic: Traffic) -> Result<()> {
        let others = (0..self.addresses.len()).filter(|other| *other != member);
        others.into_iter().try_for_each(|other| self.cut_both_ways(member, other, traffic))
    }

    /// What clients send does not reach the member any more.
    pub fn cut_clients(&self, member: usize) -> Result<()> {
        self.drop_from(&self.address, member, Traffic::All)
    }

    /// A part of what reaches the member is lost.
    pub fn lose(&self, member: usize, probability: f64) -> Result<()> {
        let probability = probability.to_string();
        let statistic = ["-m", "statistic", "--mode", "random", "--probability", &probability];
        // What a member sends itself is not lost.
        let rule = ["iptables", "-w", "-A", "INPUT", "-i", "eth0"];
        self.in_member(member, &[&rule[..], &statistic, &["-j", "DROP"]].concat())
    }

    /// What the member sends, and what is sent to it, passes at this rate (as `tc` writes it, `1mbit`) and waits up to a second.
    pub fn slow(&self, member: usize, rate: &str) -> Result<()> {
        let bucket = ["root", "tbf", "rate", rate, "burst", "16kb", "latency", "1s"];
        let port = format!("port{}", member + 1);
        run(&[&["tc", "-n", &self.namespaces[member], "qdisc", "add", "dev", "eth0"][..], &bucket].concat())?;
        run(&[&["tc", "-n", &self.switch, "qdisc", "add", "dev", &port][..], &bucket].concat())
    }

    /// Takes the rate off again.
    pub fn speed_up(&self, member: usize) -> Result<()> {
        let port = format!("port{}", member + 1);
        run(&["tc", "-n", &self.namespaces[member], "qdisc", "del", "dev", "eth0", "root"])?;
        run(&["tc", "-n", &self.switch, "qdisc", "del", "dev", &port, "root"])
    }

    /// Every packet arrives again.
    pub fn heal(&self) -> Result<()> {
        (0..self.namespaces.len())
            .try_for_each(|member| self.in_member(member, &["iptables", "-w", "-F", "INPUT"]))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What is not there any more need not go.
        drop(run(&["ip", "link", "del", &self.link]));
        for namespace in self.namespaces.iter().chain([&self.switch]) {
            drop(run(&["ip", "netns", "del", namespace]));
        }
    }
}
