//! Rules arranged for decisions: by kind of resource and principal, then by name. A decision looks up the literal name, the
//! wildcard and the prefixes of the name; it never walks over rules of other resources.
//!
//! Rules of one pattern are folded into bit masks of operations, one pair for every host and one for each single host.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::{Acl, AclOperation, AclResourceType, EVERYBODY, PatternType, Permission, WILDCARD};

/// Operations, one bit each.
type Mask = u32;

fn bit(operation: AclOperation) -> Mask {
    1 << operation.code()
}

/// What a rule that allows one operation allows: some include to see what they change.
fn allowed_by(operation: AclOperation) -> Mask {
    match operation {
        AclOperation::All => Mask::MAX,
        AclOperation::Read | AclOperation::Write | AclOperation::Delete | AclOperation::Alter => {
            bit(operation) | bit(AclOperation::Describe)
        }
        AclOperation::AlterConfigs => bit(operation) | bit(AclOperation::DescribeConfigs),
        other => bit(other),
    }
}

/// What a rule that denies one operation denies: that one.
fn denied_by(operation: AclOperation) -> Mask {
    if operation == AclOperation::All { Mask::MAX } else { bit(operation) }
}

/// What rules say of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    pub(crate) denied: bool,
    pub(crate) allowed: bool,
}

impl Verdict {
    pub(crate) fn merge(&mut self, other: Self) {
        self.denied |= other.denied;
        self.allowed |= other.allowed;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Masks {
    deny: Mask,
    allow: Mask,
}

impl Masks {
    fn add(&mut self, acl: &Acl) {
        match acl.permission {
            Permission::Deny => self.deny |= denied_by(acl.operation),
            Permission::Allow => self.allow |= allowed_by(acl.operation),
        }
    }

    fn verdict(self, operation: Mask) -> Verdict {
        Verdict { denied: self.deny & operation != 0, allowed: self.allow & operation != 0 }
    }
}

/// The rules of one principal on one pattern.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rules {
    all: Vec<Arc<Acl>>,
    every_host: Masks,
    hosts: BTreeMap<String, Masks>,
}

impl Rules {
    fn add(&mut self, acl: &Arc<Acl>) {
        self.all.push(Arc::clone(acl));
        self.fold(acl);
    }

    fn fold(&mut self, acl: &Acl) {
        if acl.host == WILDCARD {
            self.every_host.add(acl);
        } else {
            self.hosts.entry(acl.host.clone()).or_default().add(acl);
        }
    }

    fn remove(&mut self, acl: &Acl) {
        let mut all = std::mem::take(self).all;
        all.retain(|other| **other != *acl);
        for acl in &all {
            self.fold(acl);
        }
        self.all = all;
    }

    fn verdict(&self, host: &str, operation: Mask) -> Verdict {
        let mut verdict = self.every_host.verdict(operation);
        if !self.hosts.is_empty()
            && let Some(masks) = self.hosts.get(host)
        {
            verdict.merge(masks.verdict(operation));
        }
        verdict
    }
}

/// The rules of one principal on one kind of resource. Shared until they change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct OfPrincipal {
    literal: HashMap<String, Rules>,
    wildcard: Rules,
    prefixed: BTreeMap<String, Rules>,
}

impl OfPrincipal {
    fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.wildcard.all.is_empty() && self.prefixed.is_empty()
    }

    fn rules(&mut self, acl: &Acl) -> &mut Rules {
        let name = &acl.resource_name;
        match acl.pattern_type {
            PatternType::Literal if name == WILDCARD => &mut self.wildcard,
            PatternType::Literal => self.literal.entry(name.clone()).or_default(),
            PatternType::Prefixed => self.prefixed.entry(name.clone()).or_default(),
        }
    }

    fn verdict(&self, name: &str, host: &str, operation: Mask) -> Verdict {
        let mut verdict = self.wildcard.verdict(host, operation);
        if let Some(rules) = self.literal.get(name) {
            verdict.merge(rules.verdict(host, operation));
        }
        prefixes_of(&self.prefixed, name, |_, rules| verdict.merge(rules.verdict(host, operation)));
        verdict
    }
}

/// Every key that is a prefix of a name, the longest first. All of them lie at or before the name in order, and where the
/// greatest key there is not a prefix, only what it has in common with the name can be: each step drops at least a
/// character, and needs one search.
fn prefixes_of<T>(keys: &BTreeMap<String, T>, name: &str, mut found: impl FnMut(&str, &T)) {
    let mut end = name.len();
    while !keys.is_empty() {
        let Some((key, value)) = keys.range::<str, _>(until(&name[..end])).next_back() else { return };
        let common = common_prefix(key, &name[..end]);
        if common < key.len() {
            if common == 0 && !keys.contains_key("") {
                return;
            }
            end = common;
            continue;
        }
        found(key, value);
        match name[..common].char_indices().next_back() {
            Some((before, _)) => end = before,
            None => return,
        }
    }
}

fn until(name: &str) -> (Bound<&str>, Bound<&str>) {
    (Bound::Unbounded, Bound::Included(name))
}

/// Bytes that two texts begin with alike, at a character's end.
fn common_prefix(a: &str, b: &str) -> usize {
    let mut common = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    while !b.is_char_boundary(common) || !a.is_char_boundary(common) {
        common -= 1;
    }
    common
}

/// How many rules, of whomever, there are on each pattern of a kind of resource: whether anybody protects a name at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Patterns {
    literal: HashMap<String, usize>,
    prefixed: BTreeMap<String, usize>,
}

impl Patterns {
    fn count(&mut self, acl: &Acl, is_new: bool) {
        let name = &acl.resource_name;
        let left = match acl.pattern_type {
            PatternType::Literal => self.literal.entry(name.clone()).or_default(),
            PatternType::Prefixed => self.prefixed.entry(name.clone()).or_default(),
        };
        *left = if is_new { *left + 1 } else { left.saturating_sub(1) };
        if *left == 0 {
            match acl.pattern_type {
                PatternType::Literal => drop(self.literal.remove(name)),
                PatternType::Prefixed => drop(self.prefixed.remove(name)),
            }
        }
    }

    fn covers(&self, name: &str) -> bool {
        let mut covers = self.literal.contains_key(name) || self.literal.contains_key(WILDCARD);
        if !covers {
            prefixes_of(&self.prefixed, name, |_, _| covers = true);
        }
        covers
    }
}

/// The rules on one kind of resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct OfType {
    principals: HashMap<String, Arc<OfPrincipal>>,
    patterns: Patterns,
}

/// All rules, arranged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AclIndex {
    types: BTreeMap<AclResourceType, Arc<OfType>>,
}

impl AclIndex {
    pub(crate) fn insert(&mut self, acl: &Arc<Acl>) {
        let of_type = Arc::make_mut(self.types.entry(acl.resource_type).or_default());
        of_type.patterns.count(acl, true);
        let of_principal = of_type.principals.entry(acl.principal.clone()).or_default();
        Arc::make_mut(of_principal).rules(acl).add(acl);
    }

    pub(crate) fn remove(&mut self, acl: &Acl) {
        let Some(of_type) = self.types.get_mut(&acl.resource_type) else { return };
        let of_type = Arc::make_mut(of_type);
        of_type.patterns.count(acl, false);
        let Some(of_principal) = of_type.principals.get_mut(&acl.principal) else { return };
        let of_principal = Arc::make_mut(of_principal);
        let rules = of_principal.rules(acl);
        rules.remove(acl);
        if rules.all.is_empty() {
            match acl.pattern_type {
                PatternType::Literal => drop(of_principal.literal.remove(&acl.resource_name)),
                PatternType::Prefixed => drop(of_principal.prefixed.remove(&acl.resource_name)),
            }
        }
        if of_principal.is_empty() {
            of_type.principals.remove(&acl.principal);
        }
        if of_type.principals.is_empty() {
            self.types.remove(&acl.resource_type);
        }
    }

    /// What the rules on a resource say of an operation.
    pub(crate) fn verdict(
        &self,
        principal: &str,
        host: &str,
        operation: AclOperation,
        resource_type: AclResourceType,
        name: &str,
    ) -> Verdict {
        let Some(of_type) = self.types.get(&resource_type) else { return Verdict::default() };
        let mut verdict = Verdict::default();
        for principal in [principal, EVERYBODY] {
            if let Some(of_principal) = of_type.principals.get(principal) {
                verdict.merge(of_principal.verdict(name, host, bit(operation)));
            }
        }
        verdict
    }

    /// Whether any rule, of whomever, is on a resource.
    pub(crate) fn covers(&self, resource_type: AclResourceType, name: &str) -> bool {
        self.types.get(&resource_type).is_some_and(|of_type| of_type.patterns.covers(name))
    }

    /// Whether there is a name, known or not, of a kind of resource on which the operation is allowed: an allowing pattern
    /// that no denying one covers whole.
    pub(crate) fn is_allowed_somewhere(
        &self,
        principal: &str,
        host: &str,
        operation: AclOperation,
        resource_type: AclResourceType,
    ) -> bool {
        let Some(of_type) = self.types.get(&resource_type) else { return false };
        let operation = bit(operation);
        let mine: Vec<&OfPrincipal> = [principal, EVERYBODY]
            .into_iter()
            .filter_map(|principal| of_type.principals.get(principal).map(|rules| &**rules))
            .collect();
        let denied = |rules: Option<&Rules>| rules.is_some_and(|rules| rules.verdict(host, operation).denied);
        if mine.iter().any(|rules| denied(Some(&rules.wildcard))) {
            return false;
        }
        let is_prefix_denied = |name: &str| {
            let mut found = false;
            for rules in &mine {
                prefixes_of(&rules.prefixed, name, |_, rules| found |= denied(Some(rules)));
            }
            found
        };
        let is_literal_denied = |name: &str| mine.iter().any(|rules| denied(rules.literal.get(name)));
        mine.iter().any(|of_principal| {
            let allowed = |rules: &Rules| rules.verdict(host, operation).allowed;
            allowed(&of_principal.wildcard)
                || of_principal.prefixed.iter().any(|(name, rules)| allowed(rules) && !is_prefix_denied(name))
                || of_principal.literal.iter().any(|(name, rules)| {
                    allowed(rules) && !is_prefix_denied(name) && !is_literal_denied(name)
                })
        })
    }
}
