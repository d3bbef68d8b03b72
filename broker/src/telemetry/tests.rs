use super::*;
use ottla_metadata::image::LogIndex;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{ConfigRecord, MetadataRecord, ResourceType};

fn image(settings: &[(&str, &str, &str)]) -> MetadataImage {
    let records: Vec<_> = settings
        .iter()
        .map(|(subscription, name, value)| MetadataRecord {
            record: Some(Record::Config(ConfigRecord {
                resource_type: ResourceType::ClientMetrics.into(),
                resource_name: (*subscription).to_owned(),
                name: (*name).to_owned(),
                value: Some((*value).to_owned()),
            })),
        })
        .collect();
    MetadataImage::default().apply(LogIndex(1), &records).unwrap().0
}

fn client(id: &str) -> ClientAttributes {
    ClientAttributes { client_id: id.to_owned(), ..Default::default() }
}

fn push(told: &Told) -> Push {
    Push {
        instance: told.instance,
        subscription_id: told.subscription_id,
        is_terminating: false,
        compression_type: 0,
    }
}

#[test]
fn a_subscription_is_for_whom_it_matches() {
    let image = image(&[
        ("all", "metrics", "org.apache.kafka.consumer"),
        ("all", "interval.ms", "5000"),
        ("one", "metrics", "org.apache.kafka.producer, x"),
        ("one", "match", "client_id=a.*"),
        ("one", "interval.ms", "1000"),
        ("broken", "match", "client_id=("),
        ("broken", "metrics", "*"),
    ]);
    let telemetry = Telemetry::new(1_000);
    let matched = telemetry.subscribe(&image, Uuid::nil(), client("abc"), 0).unwrap();
    assert_eq!(matched.metrics, ["org.apache.kafka.consumer", "org.apache.kafka.producer", "x"]);
    assert_eq!(matched.interval_ms, 1_000);
    assert!(!matched.instance.is_nil());
    let other = telemetry.subscribe(&image, Uuid::nil(), client("bca"), 0).unwrap();
    assert_eq!((other.metrics.len(), other.interval_ms), (1, 5_000));
    assert_ne!(other.subscription_id, matched.subscription_id);
    let nobody = telemetry.subscribe(&MetadataImage::default(), Uuid::nil(), client("a"), 0).unwrap();
    assert_eq!((nobody.metrics.len(), nobody.interval_ms), (0, 300_000));
}

#[test]
fn a_star_asks_for_everything() {
    let image = image(&[("s", "metrics", "*,a")]);
    let told = Telemetry::new(1).subscribe(&image, Uuid::nil(), client(""), 0).unwrap();
    assert_eq!(told.metrics, [""]);
}

#[test]
fn clients_that_come_too_early_or_with_too_much_are_refused() {
    let image = image(&[("s", "metrics", "*"), ("s", "interval.ms", "1000")]);
    let telemetry = Telemetry::new(200);
    let send = |push: Push, bytes: &Bytes, at: u64| telemetry.push(&image, push, client("c"), bytes, at);
    let told = telemetry.subscribe(&image, Uuid::nil(), client("c"), 0).unwrap();
    let ask =
        |at| telemetry.subscribe(&image, told.instance, client("c"), at).map(|told| told.subscription_id);
    assert_eq!(ask(500), Err(ErrorCode::ThrottlingQuotaExceeded));
    let gauge = received::gauge_of("up", 1.0);
    assert_eq!(send(push(&told), &gauge, 500), Ok(()), "the first push after asking is due");
    assert_eq!(send(push(&told), &gauge, 1_400), Err(ErrorCode::ThrottlingQuotaExceeded));
    let large = Bytes::from(vec![0; 201]);
    assert_eq!(send(push(&told), &large, 1_500), Err(ErrorCode::TelemetryTooLarge));
    let stale = Push { subscription_id: told.subscription_id.wrapping_add(1), ..push(&told) };
    assert_eq!(send(stale, &gauge, 2_500), Err(ErrorCode::UnknownSubscriptionId));
    assert_eq!(ask(2_501), Ok(told.subscription_id), "who has a stale subscription may ask at once");
    let unknown = Push { compression_type: 9, ..push(&told) };
    assert_eq!(send(unknown, &gauge, 2_502), Err(ErrorCode::UnsupportedCompressionType));
    let garbage = Bytes::from_static(b"\xff\xff\xff\xff");
    assert_eq!(send(push(&told), &garbage, 4_000), Err(ErrorCode::InvalidRecord));
    let nil = Push { instance: Uuid::nil(), ..push(&told) };
    assert_eq!(send(nil, &gauge, 4_000), Err(ErrorCode::InvalidRequest));
    let last = Push { is_terminating: true, ..push(&told) };
    assert_eq!(send(last, &gauge, 4_001), Ok(()), "the last push may come early");
    assert_eq!(send(last, &gauge, 9_000), Err(ErrorCode::InvalidRequest));
}

#[test]
fn what_came_is_shown_and_differences_are_added_up() {
    let image = image(&[("s", "metrics", "*"), ("s", "interval.ms", "1000")]);
    let telemetry = Telemetry::new(10_000);
    let told = telemetry.subscribe(&image, Uuid::nil(), client("c\"1"), 0).unwrap();
    for at in [1_000, 2_000] {
        let bytes = received::sum_of("sent", 2.5, Some(1));
        telemetry.push(&image, push(&told), client("c\"1"), &bytes, at).unwrap();
    }
    let page = telemetry.page(5_000);
    let line = format!(
        "ottla_client_metric{{client_id=\"c\\\"1\",client_instance_id=\"{}\",metric=\"sent\",\
         attribute_node_id=\"a\\\"b\"}} 5\n",
        told.instance
    );
    assert!(page.contains(&line), "{page}");
    assert!(!telemetry.page(5_001).contains("sent"), "three pushes were missed");
}

#[test]
fn no_more_clients_are_remembered_than_may_be() {
    let telemetry = Telemetry::new(1);
    let image = MetadataImage::default();
    for at in 0..CLIENTS_MAX as u64 + 10 {
        telemetry.subscribe(&image, Uuid::nil(), client(""), at).unwrap();
    }
    assert_eq!(telemetry.state.lock().instances.len(), CLIENTS_MAX);
}
