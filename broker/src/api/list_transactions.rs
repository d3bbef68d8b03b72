//! ListTransactions 0-2: the transactional ids that this broker coordinates (KIP-664), filtered by state and producer, by
//! how long a transaction has run (KIP-994), by a pattern of ids (KIP-1152).

use ottla_coordinator::transaction::TransactionFilter;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::list_transactions_response::TransactionState;
use ottla_wire::messages::{ListTransactionsRequest, ListTransactionsResponse};
use regex::{Regex, RegexBuilder};

use super::authorization::{Access, Operation, Resource};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

/// Bytes that a compiled pattern of a client may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: ListTransactionsRequest,
) -> Answer {
    let response = list(&dispatcher.context, &dispatcher.context.access(&call), request)
        .unwrap_or_else(|error| ListTransactionsResponse { error_code: error.code(), ..Default::default() });
    call.ready(&response)
}

fn list(
    context: &BrokerContext,
    access: &Access,
    request: ListTransactionsRequest,
) -> Result<ListTransactionsResponse, ErrorCode> {
    let (states, unknown_state_filters) = TransactionFilter::parse_states(&request.state_filters);
    let pattern = request.transactional_id_pattern.filter(|pattern| !pattern.is_empty());
    let pattern = pattern.map(|pattern| compile(&pattern)).transpose()?;
    let matches = |id: &str| pattern.as_ref().is_none_or(|pattern| pattern.is_match(id));
    let filter = TransactionFilter {
        only_unknown_states: states.is_empty() && !unknown_state_filters.is_empty(),
        states,
        producer_ids: request.producer_id_filters,
        duration_ms: (request.duration_filter >= 0).then_some(request.duration_filter),
        matches: Some(&matches),
    };
    let now_ms = BrokerContext::now_ms();
    let lists = context.transactions.query_all(|machine| machine.list(now_ms, &filter))?;
    let transaction_states = lists
        .into_iter()
        .flatten()
        .filter(|found| access.sees(Operation::Describe, Resource::TransactionalId, &found.transactional_id))
        .map(|found| TransactionState {
            transactional_id: found.transactional_id,
            producer_id: found.producer_id,
            transaction_state: found.state.name().into(),
        })
        .collect();
    Ok(ListTransactionsResponse { unknown_state_filters, transaction_states, ..Default::default() })
}

/// The id as a whole must match.
fn compile(pattern: &str) -> Result<Regex, ErrorCode> {
    // The pattern by itself first: parentheses around what is broken can make sense of it.
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
            .map_err(|_| ErrorCode::InvalidRegularExpression)
    };
    build(pattern)?;
    build(&format!("^(?:{pattern})$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_must_match_the_whole_id_and_be_one() {
        let pattern = compile("order-.*|a").unwrap();
        assert!(pattern.is_match("order-7") && pattern.is_match("a"));
        assert!(!pattern.is_match("my-order-7") && !pattern.is_match("ab"));
        for broken in ["([", "a)(b", "*"] {
            assert_eq!(compile(broken).unwrap_err(), ErrorCode::InvalidRegularExpression);
        }
    }
}
