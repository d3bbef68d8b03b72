//! What a pod of a Kubernetes StatefulSet knows of itself: its name ends in its ordinal.
//!
//! All pods of a StatefulSet have one template, hence one environment; what differs between nodes is filled in here, for the
//! image has no shell to do it. `OTTLA_POD_NAME=ottla-2` makes node 2, `OTTLA_NODE_ID_OFFSET=100` makes it node 102, and in the
//! values of other `OTTLA_` variables `{ordinal}` becomes `2` and `{ordinal+30092}` becomes `30094`: a port for each pod.

use super::settings::{Origin, Problem};

/// The variable that holds the pod's name.
pub(super) const NAME: &str = "OTTLA_POD_NAME";
/// The variable with what is added to the ordinal, for clusters of more than one StatefulSet.
pub(super) const NODE_ID_OFFSET: &str = "OTTLA_NODE_ID_OFFSET";
/// Opens a placeholder.
const OPEN: &str = "{ordinal";

/// A pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pod {
    ordinal: i32,
    /// The node that it is, unless `node.id` is set.
    pub(super) node_id: i32,
}

impl Pod {
    /// `None` where the environment names no pod.
    pub(super) fn read(environment: &[(String, String)]) -> Result<Option<Self>, Problem> {
        let get = |wanted: &str| {
            let value = environment.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.trim());
            value.filter(|value| !value.is_empty())
        };
        let problem = |variable: &str, message: String| Problem {
            origin: Some(Origin::Variable(variable.to_owned())),
            name: "node.id".to_owned(),
            message,
        };
        let Some(name) = get(NAME) else { return Ok(None) };
        let ordinal = name.rsplit_once('-').and_then(|(_, ordinal)| number(ordinal)).ok_or_else(|| {
            problem(
                NAME,
                format!("'{name}' does not end in an ordinal as the pods of a StatefulSet do; set node.id"),
            )
        })?;
        let offset = match get(NODE_ID_OFFSET) {
            Some(text) => number(text)
                .ok_or_else(|| problem(NODE_ID_OFFSET, format!("'{text}' is not a number from 0 on")))?,
            None => 0,
        };
        let node_id = ordinal.checked_add(offset).ok_or_else(|| {
            problem(NODE_ID_OFFSET, format!("{ordinal} and {offset} are more than a node id can be"))
        })?;
        Ok(Some(Self { ordinal, node_id }))
    }

    /// A value with its placeholders filled in. What looks like one and is not stays.
    pub(super) fn fill(self, value: &str) -> String {
        let mut filled = String::with_capacity(value.len());
        let mut rest = value;
        while let Some(at) = rest.find(OPEN) {
            let (before, from) = rest.split_at(at);
            filled.push_str(before);
            let inner = from[OPEN.len()..].split_once('}');
            match inner.and_then(|(sum, after)| Some((self.sum(sum)?, after))) {
                Some((sum, after)) => {
                    filled.push_str(&sum.to_string());
                    rest = after;
                }
                None => {
                    filled.push_str(OPEN);
                    rest = &from[OPEN.len()..];
                }
            }
        }
        filled + rest
    }

    /// The ordinal with what stands behind it, nothing or `+N`.
    fn sum(self, text: &str) -> Option<i32> {
        if text.is_empty() {
            return Some(self.ordinal);
        }
        self.ordinal.checked_add(number(text.strip_prefix('+')?)?)
    }
}

/// Digits only: no sign, no blanks.
fn number(text: &str) -> Option<i32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Pod>, Problem> {
        let owned: Vec<_> = pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Pod::read(&owned)
    }

    #[test]
    fn the_node_id_is_the_ordinal_and_the_offset() {
        assert_eq!(read(&[("HOME", "/")]).unwrap(), None);
        assert_eq!(read(&[(NAME, "")]).unwrap(), None);
        assert_eq!(read(&[(NAME, "my-ottla-0")]).unwrap().unwrap().node_id, 0);
        let brokers = read(&[(NAME, "ottla-broker-12"), (NODE_ID_OFFSET, "100")]).unwrap().unwrap();
        assert_eq!((brokers.ordinal, brokers.node_id), (12, 112));
    }

    #[test]
    fn a_name_without_an_ordinal_and_a_wrong_offset_are_problems() {
        for name in ["ottla", "ottla-", "ottla-x", "ottla-7d9f-abc", "ottla-+1", "ottla-99999999999"] {
            let problem = read(&[(NAME, name)]).unwrap_err();
            assert!(problem.to_string().contains("set node.id"), "{problem}");
        }
        assert!(read(&[(NAME, "ottla-1"), (NODE_ID_OFFSET, "-5")]).is_err());
        assert!(read(&[(NAME, "ottla-1"), (NODE_ID_OFFSET, "2147483647")]).is_err());
    }

    #[test]
    fn placeholders_are_filled_and_all_else_stays() {
        let pod = Pod { ordinal: 2, node_id: 2 };
        assert_eq!(pod.fill("A://h-{ordinal}.x:{ordinal+30092},B://y"), "A://h-2.x:30094,B://y");
        assert_eq!(pod.fill("{ordinal}{ordinal}"), "22");
        for same in ["", "{}", "{ordinal", "{ordinal-1}", "{ordinal+}", "{ordinal+x}", "{ordinals}", "$2{a}"]
        {
            assert_eq!(pod.fill(same), same);
        }
        assert_eq!(pod.fill("{ordinal+x}{ordinal}"), "{ordinal+x}2");
        assert_eq!(pod.fill("{ordinal+2147483647}"), "{ordinal+2147483647}");
    }
}
