//! Lists, page by page.

/// Entries that are asked for at once.
pub(crate) const PAGE: i32 = 1000;

/// Every entry of a list: calls `client.method(request)` until there is no next page, and collects `field`.
macro_rules! all_pages {
    ($client:ident.$method:ident($request:expr).$field:ident) => {{
        let mut request = $request;
        request.page_size = $crate::pages::PAGE;
        let mut all = Vec::new();
        loop {
            let page = $client.$method(request.clone()).await?;
            all.extend(page.$field);
            if page.next_page_token.is_empty() {
                break all;
            }
            request.page_token = page.next_page_token;
        }
    }};
}

pub(crate) use all_pages;
