//! The admin plane over TLS: certificates say who calls, and the gate lets nodes in.

use std::sync::OnceLock;

use ottla_metadata::image::MetadataImage;
use ottla_proto::admin::ListUsersRequest;
use ottla_proto::admin::admin_client::AdminClient;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status};

use super::*;
use crate::admin::{AdminService, node_gate};
use crate::controller_link::{ControllerClient, ImageHandle};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The properties of who trusts this authority and shows a certificate of it; `None`: shows none.
    fn properties(&self, name: Option<&str>) -> Properties {
        let mut all = Properties::new();
        let mut set = |key: &str, value: String| drop(all.insert(key.to_owned(), value));
        set("ssl.truststore.certificates", self.0.pem());
        set("ssl.client.auth", "required".to_owned());
        set("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned());
        set("super.users", "User:CN=node".to_owned());
        if let Some(name) = name {
            let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            set("ssl.keystore.certificate.chain", params.signed_by(&key, &self.0).unwrap().pem());
            set("ssl.keystore.key", key.serialize_pem());
        }
        all
    }
}

fn image() -> ImageHandle {
    let image = ImageHandle::default();
    let first = MetadataImage::default().apply(ottla_metadata::image::LogIndex(0), &[]).unwrap().0;
    image.publish(Arc::new(first));
    image
}

/// An admin plane behind TLS; gives its address.
async fn serve(properties: Properties) -> SocketAddr {
    let properties = Arc::new(properties);
    let security =
        GrpcSecurity::open("CONTROLLER", SecurityProtocol::Ssl, &properties, ImageHandle::default())
            .unwrap()
            .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let controller = ControllerClient::new(vec!["127.0.0.1:1".to_owned()]);
    let replicas = Arc::new(OnceLock::new());
    let service = AdminService::new(1, image(), controller, replicas, properties).into_server();
    let incoming = security.incoming(listener, CancellationToken::new());
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    address
}

/// What a caller is answered who asks for the users.
async fn ask(address: SocketAddr, properties: Properties) -> Result<(), Code> {
    let properties = Arc::new(properties);
    let security =
        GrpcSecurity::open("CONTROLLER", SecurityProtocol::Ssl, &properties, ImageHandle::default())
            .unwrap()
            .unwrap();
    let channel: Channel =
        security.dial().channel(&Endpoint::from_shared(format!("http://{address}")).unwrap());
    AdminClient::new(channel).list_users(ListUsersRequest {}).await.map(drop).map_err(|status| status.code())
}

#[tokio::test]
async fn a_certificate_says_who_calls() {
    let authority = Authority::new();
    let address = serve(authority.properties(Some("node"))).await;
    assert_eq!(ask(address, authority.properties(Some("node"))).await, Ok(()));
    assert_eq!(ask(address, authority.properties(Some("carol"))).await, Err(Code::PermissionDenied));
    let foreign = Authority::new().properties(Some("node"));
    assert_eq!(ask(address, foreign).await, Err(Code::Unavailable));
    let plain = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    assert!(AdminClient::new(plain).list_users(ListUsersRequest {}).await.is_err());
}

#[test]
fn the_gate_lets_in_who_may_act_for_the_cluster() {
    let properties = Authority::new().properties(None);
    let request = |name: Option<&str>| {
        let mut request = Request::new(());
        if let Some(name) = name {
            let (address, principal) = (SocketAddr::from(([127, 0, 0, 1], 9)), Principal::user(name));
            request.extensions_mut().insert(GrpcCaller { address, principal });
        }
        request
    };
    let mut gate = node_gate(&properties, ImageHandle::default());
    let mut call = |name| gate.call(request(name)).map(drop).map_err(|status: Status| status.code());
    assert_eq!(call(Some("CN=node")), Ok(()));
    assert_eq!(call(Some("CN=carol")), Err(Code::PermissionDenied));
    assert_eq!(call(None), Err(Code::PermissionDenied));
    // Without an authorizer everybody passes whom the listener lets in.
    assert!(node_gate(&Properties::new(), ImageHandle::default()).call(request(None)).is_ok());
}
