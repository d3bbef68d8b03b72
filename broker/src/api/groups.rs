//! What the handlers of groups share.

use ottla_coordinator::group::Client as GroupClient;
use ottla_wire::text::Text;

use super::Call;

/// The client as groups show it.
pub(super) fn client_of(call: &Call) -> GroupClient {
    GroupClient {
        id: call.client_id.clone().unwrap_or_default(),
        host: Text::from(format!("/{}", call.client_host)),
    }
}
