//! Kafka's range assignor: of each topic, the partitions in order, in runs as even as they can be, to the members that
//! subscribe to it, in the order of their ids.

use std::collections::BTreeMap;

/// What each member gets: topics and partitions.
pub(crate) type Assignments = BTreeMap<String, BTreeMap<String, Vec<i32>>>;

/// `members`: id and topics. `partitions`: of each topic that exists.
pub(crate) fn range(
    members: &BTreeMap<String, Vec<String>>,
    partitions: &BTreeMap<String, Vec<i32>>,
) -> Assignments {
    let mut all: Assignments = members.keys().map(|id| (id.clone(), BTreeMap::new())).collect();
    for (topic, partitions) in partitions {
        let subscribed: Vec<_> =
            members.iter().filter(|(_, topics)| topics.contains(topic)).map(|(id, _)| id).collect();
        if subscribed.is_empty() {
            continue;
        }
        let (each, more) = (partitions.len() / subscribed.len(), partitions.len() % subscribed.len());
        let mut rest = partitions.as_slice();
        for (at, id) in subscribed.into_iter().enumerate() {
            let (own, others) = rest.split_at((each + usize::from(at < more)).min(rest.len()));
            rest = others;
            if let (false, Some(member)) = (own.is_empty(), all.get_mut(id)) {
                member.insert(topic.clone(), own.to_vec());
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(all: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        all.iter()
            .map(|(id, topics)| ((*id).to_owned(), topics.iter().map(|t| (*t).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn partitions_go_in_runs_and_the_first_members_get_one_more() {
        let partitions = [("a".to_owned(), vec![0, 1, 2, 3, 4])].into();
        let all = range(&members(&[("m1", &["a"]), ("m2", &["a"])]), &partitions);
        assert_eq!(all["m1"]["a"], [0, 1, 2]);
        assert_eq!(all["m2"]["a"], [3, 4]);
    }

    #[test]
    fn only_subscribers_get_a_topic_and_who_is_left_over_gets_nothing() {
        let partitions = [("a".to_owned(), vec![0]), ("b".to_owned(), vec![0, 1])].into();
        let all = range(&members(&[("m1", &["a"]), ("m2", &["a", "b"]), ("m3", &["c"])]), &partitions);
        assert_eq!(all["m1"]["a"], [0]);
        assert_eq!(all["m2"], [("b".to_owned(), vec![0, 1])].into());
        assert!(all["m3"].is_empty());
    }
}
