//! Resources.

use quota_core::amount::AMOUNT_MAX;
use quota_core::command::{Action, Existence, SetResource};
use quota_core::name::ResourceKey;
use quota_core::outcome::{Answer, Reply};
use quota_core::rejection::Rejection;
use quota_core::resource::{Kind, WithoutQuota};
use quota_proto::v1;
use tonic::Status;

use super::{Admin, existence};
use crate::api::from_proto::{Caller, DISPLAY_BYTES_MAX, Identity, Reader, admin_identity};
use crate::api::{execute, page, status, to_proto, unexpected};

/// Longest name of a unit, in bytes.
const UNIT_BYTES_MAX: usize = 32;

impl Admin {
    pub(super) async fn create_resource(
        &self,
        mut request: v1::CreateResourceRequest,
        caller: Caller,
    ) -> Result<v1::CreateResourceResponse, Status> {
        let mut reader = Reader::default();
        let identity = admin_identity!(reader, "CreateResource", request);
        let etag = request
            .resource
            .as_ref()
            .is_some_and(|r| !r.etag.is_empty());
        if etag {
            reader.wrong("resource.etag", "must be empty: there is no version yet");
        }
        let set = read(reader, request.resource, Existence::New)?;
        let (reply, operation_id) = self.set_resource(caller, identity, set).await?;
        Ok(v1::CreateResourceResponse {
            resource: Some(resource_of(&reply)?),
            operation_id,
            replayed: reply.replayed,
        })
    }

    pub(super) async fn update_resource(
        &self,
        mut request: v1::UpdateResourceRequest,
        caller: Caller,
    ) -> Result<v1::UpdateResourceResponse, Status> {
        let mut reader = Reader::default();
        let identity = admin_identity!(reader, "UpdateResource", request);
        let set = read(reader, request.resource, existence(request.allow_missing))?;
        let (reply, operation_id) = self.set_resource(caller, identity, set).await?;
        Ok(v1::UpdateResourceResponse {
            resource: Some(resource_of(&reply)?),
            operation_id,
            replayed: reply.replayed,
        })
    }

    pub(super) async fn delete_resource(
        &self,
        mut request: v1::DeleteResourceRequest,
        caller: Caller,
    ) -> Result<v1::DeleteResourceResponse, Status> {
        let mut reader = Reader::default();
        let identity = admin_identity!(reader, "DeleteResource", request);
        let key = reader.resource("key", &request.key);
        reader.finish()?;
        let action = Action::DeleteResource {
            key: key.unwrap_or_else(stand_in),
            etag: request.etag,
        };
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        Ok(v1::DeleteResourceResponse {
            operation_id,
            replayed: reply.replayed,
        })
    }

    pub(super) async fn get_resource(
        &self,
        request: v1::GetResourceRequest,
        _: Caller,
    ) -> Result<v1::GetResourceResponse, Status> {
        let mut reader = Reader::default();
        let key = reader.resource("key", &request.key);
        reader.finish()?;
        let key = key.unwrap_or_else(stand_in);
        match self.engine.views().tables().resources.get(key.as_str()) {
            Some(resource) => Ok(v1::GetResourceResponse {
                resource: Some(to_proto::resource(resource)),
            }),
            None => Err(status::of_rejection(&Rejection::ResourceUnknown(key))),
        }
    }

    pub(super) async fn list_resources(
        &self,
        request: v1::ListResourcesRequest,
        _: Caller,
    ) -> Result<v1::ListResourcesResponse, Status> {
        let mut reader = Reader::default();
        let size = page::size(&mut reader, request.page_size);
        let only = v1::ResourceKind::try_from(request.kind).unwrap_or_else(|_| {
            let text = format!("{} is no kind, such as RESOURCE_KIND_COUNTER", request.kind);
            reader.wrong("kind", text);
            v1::ResourceKind::Unspecified
        });
        let filter = format!("ListResources {}", request.kind);
        let after = page::after(&mut reader, &filter, &request.page_token);
        reader.finish()?;
        let tables = self.engine.views().tables();
        let (resources, next) = page::collect(
            tables.resources.after(&after),
            size,
            |resource| resource.key.to_string(),
            |resource| {
                let any = only == v1::ResourceKind::Unspecified;
                let fits = any || to_proto::kind(resource.kind) == only;
                fits.then(|| to_proto::resource(resource))
            },
        );
        Ok(v1::ListResourcesResponse {
            resources,
            next_page_token: next.map_or(String::new(), |last| page::token(&filter, &last)),
        })
    }

    async fn set_resource(
        &self,
        caller: Caller,
        identity: Identity,
        set: SetResource,
    ) -> Result<(Reply, String), Status> {
        execute(&self.engine, caller, identity, Action::SetResource(set)).await
    }
}

fn read(
    mut reader: Reader,
    resource: Option<v1::Resource>,
    existence: Existence,
) -> Result<SetResource, Status> {
    if resource.is_none() {
        reader.wrong("resource", "is missing");
    }
    let resource = resource.unwrap_or_default();
    let key = reader.resource("resource.key", &resource.key);
    let kind = match v1::ResourceKind::try_from(resource.kind) {
        Ok(v1::ResourceKind::Allocation) => Kind::Allocation,
        Ok(v1::ResourceKind::Concurrency) => Kind::Concurrency,
        Ok(v1::ResourceKind::Counter) => Kind::Counter,
        Ok(v1::ResourceKind::Rate) => Kind::Rate,
        Ok(v1::ResourceKind::PerRequest) => Kind::PerRequest,
        Ok(v1::ResourceKind::Measured) => Kind::Measured,
        Ok(v1::ResourceKind::Unspecified) | Err(_) => {
            reader.wrong(
                "resource.kind",
                "is not set; such as RESOURCE_KIND_ALLOCATION",
            );
            Kind::Allocation
        }
    };
    if resource.base_unit.is_empty() {
        reader.wrong(
            "resource.base_unit",
            "is empty; the unit of every amount, such as `count`",
        );
    }
    let display_ratio = match resource.display_ratio {
        0 => 1,
        ratio => ratio,
    };
    if !(1..=AMOUNT_MAX).contains(&display_ratio) {
        let text = format!("is {display_ratio}; 1 to {AMOUNT_MAX} base units");
        reader.wrong("resource.display_ratio", text);
    }
    let without_quota = match v1::WithoutQuota::try_from(resource.without_quota) {
        Ok(v1::WithoutQuota::Unspecified | v1::WithoutQuota::Allow) => WithoutQuota::Allow,
        Ok(v1::WithoutQuota::Deny) => WithoutQuota::Deny,
        Err(_) => {
            reader.wrong("resource.without_quota", "ALLOW or DENY");
            WithoutQuota::Allow
        }
    };
    let base_unit = reader.text("resource.base_unit", resource.base_unit, UNIT_BYTES_MAX);
    let display_unit = reader.text(
        "resource.display_unit",
        resource.display_unit,
        UNIT_BYTES_MAX,
    );
    let display_name = resource.display_name;
    let set = SetResource {
        key: key.unwrap_or_else(stand_in),
        kind,
        display_unit: match display_unit.is_empty() {
            true => base_unit.clone(),
            false => display_unit,
        },
        base_unit,
        display_ratio,
        without_quota,
        display_name: reader.text("resource.display_name", display_name, DISPLAY_BYTES_MAX),
        existence,
        etag: resource.etag,
    };
    reader.finish()?;
    Ok(set)
}

fn resource_of(reply: &Reply) -> Result<v1::Resource, Status> {
    match &reply.outcome.answer {
        Answer::Resource(resource) => Ok(to_proto::resource(resource)),
        other => Err(unexpected(other)),
    }
}

/// Never used: a bad key does not get past its reader.
fn stand_in() -> ResourceKey {
    ResourceKey::parse("none").expect("a word is a key")
}
