//! Addresses as Kafka writes them: `NAME://host:port`, `id@host:port`, `host:port`; an IPv6 host stands in brackets.

use std::fmt;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without brackets; empty: every address of this machine.
    pub(crate) host: String,
    /// 0: any that is free.
    pub(crate) port: u16,
}

impl Address {
    /// `host:port`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not HOST:PORT");
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| format!("'{port}' in '{text}' is no port (0 to 65535)"))?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => {
                return Err(format!("'{text}': an IPv6 address stands in brackets, [::1]:9092"));
            }
            None => host,
        };
        if host.contains(['/', '@', ' ', '[', ']']) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// Whether it stands for every address of the machine, so that nobody can be sent there.
    pub(crate) fn is_wildcard(&self) -> bool {
        matches!(self.host.as_str(), "" | "0.0.0.0" | "::")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The address of an HTTP port: `host:port`, `http://host:port` or, with TLS, `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpAddress {
    pub(crate) address: Address,
    pub(crate) is_tls: bool,
}

impl HttpAddress {
    /// Any of the three.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (is_tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, _)) => {
                return Err(format!("'{text}': {scheme} is neither http nor https"));
            }
            None => (false, text),
        };
        Ok(Self { address: Address::parse(rest.strip_suffix('/').unwrap_or(rest))?, is_tls })
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_tls { "https://" } else { "" }, self.address)
    }
}

/// A listener: its name, upper case, and its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) address: Address,
}

/// `NAME://host:port,…`.
pub(super) fn listeners(text: &str) -> Result<Vec<Listener>, String> {
    let mut all: Vec<Listener> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, address) =
            item.split_once("://").ok_or_else(|| format!("'{item}' is not NAME://HOST:PORT"))?;
        let name = name.to_ascii_uppercase();
        if name.is_empty() {
            return Err(format!("'{item}' has no name in front of ://"));
        }
        if all.iter().any(|other| other.name == name) {
            return Err(format!("the listener {name} is there twice"));
        }
        all.push(Listener { name, address: Address::parse(address)? });
    }
    Ok(all)
}

/// `id@host:port,…`.
pub(super) fn voters(text: &str) -> Result<Vec<(i32, Address)>, String> {
    let mut all: Vec<(i32, Address)> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (id, address) = item.split_once('@').ok_or_else(|| format!("'{item}' is not ID@HOST:PORT"))?;
        let id = id.trim().parse().ok().filter(|id: &i32| *id >= 0);
        let id = id.ok_or_else(|| format!("'{item}' does not begin with a node id"))?;
        let address = Address::parse(address)?;
        if all.iter().any(|(other, _)| *other == id) {
            return Err(format!("node {id} is there twice"));
        }
        if address.is_wildcard() || address.port == 0 {
            return Err(format!("nobody can connect to '{address}'; give the host and port of node {id}"));
        }
        all.push((id, address));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["a:1", ":9092", "[::1]:9092", "127.0.0.1:0", "[::]:9092"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["", "a", "a:", "a:x", "a:65536", "::1:9092", "[::1:9092", "a/b:1", "x@a:1"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Address::parse("[::]:1").unwrap().is_wildcard());
        assert!(!Address::parse("a:1").unwrap().is_wildcard());
    }

    #[test]
    fn an_http_address_may_have_a_scheme() {
        let of = |text: &str| HttpAddress::parse(text).unwrap().to_string();
        assert_eq!(of("0.0.0.0:9644"), "0.0.0.0:9644");
        assert_eq!(of("http://[::]:9644/"), "[::]:9644");
        assert_eq!(of(" HTTPS://n1:9644"), "https://n1:9644");
        for wrong in ["https://", "https://n1", "ftp://n1:1", "https://n1:1/x", "https//n1:1"] {
            assert!(HttpAddress::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn listeners_have_names() {
        let all = listeners("plaintext://:9092, CONTROLLER://h:9093").unwrap();
        assert_eq!((all[0].name.as_str(), all[1].address.to_string().as_str()), ("PLAINTEXT", "h:9093"));
        for wrong in ["a:1", "://a:1", "A://a:1,a://b:2", "A://a"] {
            assert!(listeners(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn voters_have_ids() {
        assert_eq!(voters("1@a:1,2@b:2").unwrap().len(), 2);
        for wrong in ["a:1", "x@a:1", "-1@a:1", "1@a:1,1@b:1", "1@0.0.0.0:9093", "1@a:0"] {
            assert!(voters(wrong).is_err(), "{wrong}");
        }
    }
}
