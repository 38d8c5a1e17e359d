//! The empty service must answer as much as the authority does, or the comparison flatters one of them.

use prost::Message;
use quota_proto::v1::check_service_client::CheckServiceClient;
use quota_proto::v1::consume_service_client::ConsumeServiceClient;

use super::caller::{check, consume, numbers, release};
use super::{Names, Target};
use crate::Failure;

/// How far the sizes may be apart, as a share of the authority's.
const APART_MAX: f64 = 0.15;

/// Demands that two servers answer Check, Consume and Release with messages of about the same size.
pub(crate) async fn demand_alike(
    echo: &Target,
    authority: &Target,
    names: &Names,
) -> Result<(), Failure> {
    let (echoed, real) = (sizes(echo, names).await?, sizes(authority, names).await?);
    for ((call, echoed), real) in ["Check", "Consume", "Release"].iter().zip(echoed).zip(real) {
        if (echoed - real).abs() > APART_MAX * real {
            return Err(format!(
                "the empty service answers a {call} with {echoed} bytes and the authority with {real}"
            )
            .into());
        }
    }
    Ok(())
}

async fn sizes(target: &Target, names: &Names) -> Result<[f64; 3], Failure> {
    let channel = &target.channels[0];
    let mut checks = CheckServiceClient::new(channel.clone());
    let mut charges = ConsumeServiceClient::new(channel.clone());
    let number = numbers(1);
    let subject = names.at(number);
    let checked = checks.check(check(subject)).await?.into_inner();
    let charged = charges.consume(consume(subject, number)).await?;
    let given_back = charges.release(release(subject, number)).await?;
    Ok([
        checked.encoded_len() as f64,
        charged.into_inner().encoded_len() as f64,
        given_back.into_inner().encoded_len() as f64,
    ])
}
