//! A client that signs in, asks one request at a time and shows the answer; and changes rules.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use ottla_broker::rights::Right;
use ottla_wire::decode::Decoder;
use ottla_wire::encode::encode_request_frame;
use ottla_wire::messages::{
    CreateAclsRequest, DeleteAclsRequest, Message, Request, SaslAuthenticateRequest, SaslHandshakeRequest,
    create_acls_request, delete_acls_request,
};

use super::granted;

/// Name of the one cluster resource.
const CLUSTER_NAME: &str = "kafka-cluster";
const CLUSTER: i8 = 4;
const ANY: i8 = 1;
const LITERAL: i8 = 3;
const ALLOW: i8 = 3;

/// A right in the numbers of ACLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) resource_type: i8,
    pub(crate) operation: i8,
}

/// A connection of somebody.
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    pub(crate) fn log_in(address: &str, user: &str, password: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut client = Self { stream };
        client.call(1, &SaslHandshakeRequest { mechanism: "PLAIN".into() })?;
        let auth_bytes = format!("\0{user}\0{password}").into_bytes().into();
        let answer = client.call(1, &SaslAuthenticateRequest { auth_bytes })?;
        ensure!(answer.error_code == 0, "{answer:?}");
        Ok(client)
    }

    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        let frame = encode_request_frame(R::KEY, version, 1, Some("test"), request)?;
        self.stream.write_all(&frame.into_bytes())?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length))?];
        self.stream.read_exact(&mut answer)?;
        let mut decoder = Decoder::new(Bytes::from(answer));
        ensure!(decoder.i32()? == 1, "the answer to another request");
        if R::KEY.response_header_version(version) > 0 {
            decoder.skip_tagged_fields()?;
        }
        Ok(R::Response::decode(&mut decoder, version)?)
    }

    /// The answer in words.
    pub(crate) fn show<R: Request<Response: std::fmt::Debug>>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<String> {
        Ok(format!("{:?}", self.call(version, request)?))
    }

    /// Gives carol these rights, and no others.
    pub(crate) fn give(&mut self, rights: &[&Right]) -> Result<()> {
        let everything = delete_acls_request::Filter {
            resource_type_filter: ANY,
            resource_name_filter: None,
            pattern_type_filter: ANY,
            principal_filter: None,
            host_filter: None,
            operation: ANY,
            permission_type: ANY,
        };
        let gone = self.call(3, &DeleteAclsRequest { filters: vec![everything] })?;
        ensure!(gone.filter_results.iter().all(|result| result.error_code == 0), "{gone:?}");
        if rights.is_empty() {
            return Ok(());
        }
        let creation = |right: &&Right| {
            let Granted { resource_type, operation } = granted(right);
            create_acls_request::Creation {
                resource_type,
                resource_name: if resource_type == CLUSTER { CLUSTER_NAME } else { "*" }.into(),
                resource_pattern_type: LITERAL,
                principal: "User:carol".into(),
                host: "*".into(),
                operation,
                permission_type: ALLOW,
            }
        };
        let request = CreateAclsRequest { creations: rights.iter().map(creation).collect() };
        let made = self.call(3, &request)?;
        ensure!(made.results.iter().all(|result| result.error_code == 0), "{made:?}");
        Ok(())
    }
}
