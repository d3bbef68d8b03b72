//! What may happen in the small worlds that are explored.

use super::world::Scenario;

/// What is explored from the very start.
pub fn scenarios() -> Vec<Scenario> {
    let all = Scenario::new;
    vec![
        Scenario { appends: 3, timeouts: 2, lags: 1, ..all("a slow network", 30) },
        Scenario { kills: 2, ..all("processes are killed", 20) },
        Scenario { kills: 3, lags: 1, appends: 1, ..all("processes are killed and lag", 18) },
        Scenario { lease_ends: 2, ..all("leases end", 20) },
        Scenario { lease_ends: 1, kills: 1, timeouts: 1, ..all("a zombie leader", 18) },
        Scenario { power_losses: 2, ..all("two disks lose their end", 18) },
        Scenario { power_losses: 1, kills: 1, lags: 1, ..all("a disk loses its end", 18) },
        Scenario { power_losses: 1, timeouts: 1, lags: 1, ..all("a wiped follower and late requests", 18) },
        Scenario { power_losses: 1, lease_ends: 1, ..all("a wiped leader", 18) },
        Scenario {
            power_losses: 3,
            synced_only: true,
            appends: 1,
            ..all("all disks lose what is not synced", 18)
        },
        Scenario { clean_stops: 2, kills: 1, rebalances: 1, ..all("rolling restart", 18) },
        Scenario { kills: 2, old_images: true, appends: 1, ..all("old images", 18) },
        Scenario {
            power_losses: 1,
            old_images: true,
            lease_ends: 1,
            appends: 1,
            ..all("old images of a wiped leader", 18)
        },
    ]
}
