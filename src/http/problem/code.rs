//! Every code that a caller can meet, in one table: status, title in both languages, what to do.
//!
//! A code never changes its meaning. `docs/errors.md` is written from this table, and a test
//! compares the two. Adding a code is adding a line here and writing the page anew (the test says how).

/// What a code means, the same wherever it occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeInfo {
    /// The code itself, stable.
    pub code: &'static str,
    /// The HTTP status it comes with; 0 for the code of a line of a feed, which has none.
    pub status: u16,
    /// What happened, in Chinese.
    pub title_zh: &'static str,
    /// What happened, in English.
    pub title_en: &'static str,
    /// What to do about it, in English.
    pub advice: &'static str,
}

macro_rules! codes {
    ($(#[$doc:meta])* $table:ident: $($name:ident = $code:literal, $status:literal, $zh:literal, $en:literal, $advice:literal;)*) => {
        $(#[doc = $en] pub const $name: &str = $code;)*

        $(#[$doc])*
        pub const $table: &[CodeInfo] = &[
            $(CodeInfo { code: $code, status: $status, title_zh: $zh, title_en: $en, advice: $advice },)*
        ];
    };
}

codes! {
    /// The codes of calls, in the order of the page.
    CODES:
    // The form of a call
    MALFORMED_JSON = "malformed-json", 400, "请求正文不是合法的 JSON", "The body is not valid JSON", "Send one JSON value in UTF-8 and nothing behind it; line and column say where reading stopped.";
    TOO_DEEP = "too-deep", 400, "JSON 嵌套过深", "The JSON is nested too deeply", "Flatten it: 128 levels is the limit.";
    UNKNOWN_FIELD = "unknown-field", 400, "有未知的字段", "A field is not known", "Leave out the field that is named, or correct its spelling.";
    MISSING_FIELD = "missing-field", 400, "缺少必填字段", "A field is missing", "Add the field that is named.";
    DUPLICATE_FIELD = "duplicate-field", 400, "同一字段出现两次", "A field stands twice", "Say each field once; which of two would count is nobody's guess.";
    WRONG_TYPE = "wrong-type", 400, "字段类型不对", "A field has another type", "Send the type that is named.";
    OUT_OF_RANGE = "out-of-range", 400, "数值或取值超出范围", "A value is out of range", "Keep within the limit that is named.";
    BAD_PAGE = "bad-page", 400, "分页参数无效", "The paging parameters cannot be used", "`limit` is 1 to 1,000; `before` is an id that stands in the list.";
    BAD_QUERY = "bad-query", 400, "查询参数无效", "The query cannot be used", "Use the parameters of the call's description, each once.";
    WRONG_CONTENT_TYPE = "wrong-content-type", 415, "内容类型不受支持", "The content type is not taken here", "Send the Content-Type that is named.";
    TOO_LARGE = "too-large", 413, "内容超过上限", "The content is larger than the limit", "Send less at a time; the limit is in `limit`.";
    HEADER_TOO_LARGE = "header-too-large", 431, "请求头过大", "The header fields are too large", "Send at most 16 KiB of header fields.";
    BAD_REQUEST = "bad-request", 400, "请求不合 HTTP 规范", "The request breaks HTTP's rules", "Compare it with RFC 9112; the detail says which rule.";
    BAD_HOST = "bad-host", 400, "请求的主机不是本服务", "The call is addressed to another host", "Send one Host field with the host of the configured address.";
    TIMEOUT = "timeout", 408, "请求超时", "The call took too long to arrive or to be answered", "Send it again; a call with the same nonce is answered the same and spends nothing.";
    NOT_FOUND = "not-found", 404, "没有这个地址或对象", "There is nothing here", "Check path and id; what belongs to somebody else is not found either.";
    METHOD_NOT_ALLOWED = "method-not-allowed", 405, "不支持该请求方法", "The method is not taken here", "Use a method that the Allow field names.";
    // Who calls
    UNAUTHENTICATED = "unauthenticated", 401, "未认证", "The call says of nobody that it is theirs", "Use a client certificate or sign the call (RFC 9421).";
    CERTIFICATE_UNKNOWN = "certificate-unknown", 401, "客户端证书未登记", "The client certificate belongs to no party", "Register its SHA-256 in parties.toml, or use the certificate that is registered.";
    CERTIFICATE_FOREIGN = "certificate-foreign", 401, "客户端证书不是由本市的机构签发", "The client certificate is not from this city's authority", "Use a certificate that the city's authority issued for clients.";
    CERTIFICATE_EXPIRED = "certificate-expired", 401, "客户端证书不在有效期内", "The client certificate is not valid at this time", "Renew it, or set the clock.";
    TWO_PARTIES = "two-parties", 401, "证书与签名属于不同机构", "Certificate and signature name two parties", "Use both of the same party, or only one of them.";
    SIGNATURE_MISSING = "signature-missing", 401, "缺少签名", "The signature is not whole", "Send both Signature-Input and Signature.";
    SIGNATURE_MALFORMED = "signature-malformed", 400, "签名字段格式不对", "The signature's fields break their form", "The detail says which part; RFC 9421 sections 2.3 and 4 give the form.";
    SIGNATURE_NOT_ONE = "signature-not-one", 400, "须恰有一个签名", "There is not exactly one signature", "Send one label, the same in both fields.";
    SIGNATURE_COVERAGE = "signature-coverage", 401, "签名覆盖的内容不足或无法核对", "The signature does not cover what it must", "Cover at least @method, @target-uri, content-digest and content-type, and only what is sent.";
    SIGNATURE_STALE = "signature-stale", 401, "签名时间不在允许范围", "The signature is too old, too new or past its end", "Set the clock by a time server and sign each call anew: 300 seconds either way are allowed.";
    SIGNATURE_WRONG = "signature-wrong", 401, "签名不符", "Key, algorithm and signature do not fit together", "Check the key id and the key; leave `alg` out or give the key's own; compare the signature base.";
    REPLAYED_SIGNATURE = "replayed-signature", 401, "签名已经用过", "This signature was used before", "Sign with a new nonce for each call.";
    CONTENT_DIGEST_MISSING = "content-digest-missing", 400, "缺少可用的内容摘要", "There is no content digest that is known here", "Send Content-Digest with sha-256 or sha-512.";
    CONTENT_DIGEST_MALFORMED = "content-digest-malformed", 400, "内容摘要格式不对", "The content digest breaks its form", "RFC 9530: `sha-256=:base64:`, each algorithm once.";
    CONTENT_DIGEST_MISMATCH = "content-digest-mismatch", 400, "内容摘要与正文不符", "The body does not have the digest that was sent", "Sign the very bytes that are sent; something in between may have changed them.";
    NOT_LOGGED_IN = "not-logged-in", 401, "未登录", "Nobody is logged in", "Log in; a session ends by itself after a while.";
    WRONG_ORIGIN = "wrong-origin", 403, "请求来自其他网站", "The request comes from another site", "Send it from the gateway's own pages; Origin must be theirs.";
    NOT_PERMITTED = "not-permitted", 403, "没有权限", "This role may not do this", "`policies/access.toml` says who may; ask the operator.";
    // Asking
    UNKNOWN_SCENARIO = "unknown-scenario", 403, "没有这个场景或不属于本机构", "There is no such scenario for this party", "`GET /v1/scenarios` lists who may ask what.";
    CONSENT_NOT_RECOGNISED = "consent-not-recognised", 403, "无法识别的授权", "The consent is not recognised", "Ask the person for a token or code that they made for this scenario and this party.";
    CONSENT_OVER = "consent-over", 409, "授权已结束", "The consent is over", "Give a new consent, and make the code for that one.";
    AFTER_RESTORE = "after-restore", 503, "系统刚从备份恢复，明天起可以重新同意", "The gateway was restored from a backup", "Give the consent again from the next day on; earlier ones are over.";
    TOO_MANY_CODES = "too-many-codes", 429, "无效授权码过多", "Too many codes were wrong", "Wait as long as Retry-After says; tokens go on meanwhile.";
    // Consenting
    CONSENT_BEYOND_LIMITS = "consent-beyond-limits", 422, "授权超出场景限度", "The consent would go beyond what the scenario allows", "Stay within the scenario's `uses_max` and `days_max`.";
    PARTY_REQUIRED = "party-required", 422, "须指明机构", "The scenario has several parties: say which", "Name one of the scenario's parties.";
    UNKNOWN_PARTY = "unknown-party", 422, "该场景没有这个机构", "This party does not ask in this scenario", "Name one of the scenario's parties.";
    // Officers
    CASE_NOT_OPEN = "case-not-open", 403, "案件未开启", "The case is not open", "Another officer must confirm it first; a closed case stays closed.";
    CASE_OWN = "case-own", 403, "不能确认自己提出的案件", "An officer cannot confirm their own case", "Ask another officer.";
    // Models
    MODEL_MISTAKES = "model-mistakes", 422, "模型文件有错", "The model's file has mistakes", "The detail names file, line and reason of each.";
    MODEL_CHANGED = "model-changed", 409, "该模型编号已用于另一份文件", "A model of this id is known and has other bytes", "Give the changed model an id of its own.";
    MODEL_IN_COMMENT = "model-in-comment", 409, "征求意见期未满", "The draft is still open for comment", "Publish it from the day on that the detail names.";
    MODEL_NOT_APPROVED = "model-not-approved", 409, "批准人数不足", "Approvals are missing", "Two different officers or operators approve a draft.";
    MODEL_APPROVED = "model-approved", 409, "本人已经批准过", "You approved this draft before", "One person's approval counts once; ask another officer or operator.";
    MODEL_PUBLISHED = "model-published", 409, "模型已经发布", "The model is published already", "Its day of effect does not change any more, nor who approved it; draft another one.";
    // The gateway's state
    TOO_MANY_REQUESTS = "too-many-requests", 429, "请求过于频繁", "Too many calls", "Slow down and wait as long as Retry-After says.";
    OVERLOADED = "overloaded", 503, "系统繁忙", "The gateway is busy", "Wait as long as Retry-After says, and send the call again.";
    CLOCK_STEPPED = "clock-stepped", 503, "系统时钟异常", "The gateway's clock cannot be trusted", "Nothing is answered until the operator has set it right.";
    NOT_READY = "not-ready", 503, "系统尚未就绪", "The gateway is not ready", "Wait until /readyz answers 200.";
    INTERNAL = "internal", 500, "系统内部错误", "Something went wrong inside", "Give the operator the incident number; nothing was answered.";
}

codes! {
    /// The codes of refused lines, in feeds and in the files of `evaluate`.
    LINE_CODES:
    LINE_MALFORMED = "malformed", 0, "该行格式不对", "The line or a value breaks its form", "One JSON object a line, or one row with the known headings; the message names the field.";
    LINE_UNKNOWN_FIELD = "unknown-field", 0, "有未知的字段", "A field is not known", "Leave it out, or correct its spelling.";
    LINE_MISSING_FIELD = "missing-field", 0, "缺少必填字段", "A field is missing", "Add the field that is named.";
    LINE_WRONG_CHECK_DIGIT = "wrong-check-digit", 0, "证件号码校验位不对", "The identity number's check digit is wrong", "Read the number again from the card.";
    LINE_IMPOSSIBLE_DATE = "impossible-date", 0, "日期不可能", "A date cannot be", "A day that exists, not in the future, an end after its beginning, a birth date that the number does not contradict.";
    LINE_UNKNOWN_INDICATOR = "unknown-indicator", 0, "目录中没有该指标", "The catalogue has no such indicator", "`GET /v1/catalogue` lists the indicators.";
    LINE_PROVIDER_NOT_ALLOWED = "provider-not-allowed", 0, "该单位不得报送该指标", "This provider may not report this indicator", "The catalogue says who reports what; `provider` is the caller's own id.";
    LINE_CONSENT_REQUIRED = "consent-required", 0, "缺少本人授权编号", "The indicator needs a consent reference", "Send `consent_ref`.";
    LINE_QUANTITY_REQUIRED = "quantity-required", 0, "缺少数量", "The indicator needs a quantity", "Send `quantity`, a whole number from 1.";
    LINE_QUANTITY_NOT_ALLOWED = "quantity-not-allowed", 0, "该指标不带数量", "The indicator takes no quantity", "Leave `quantity` out.";
    LINE_PROHIBITED_ITEM = "prohibited-item", 0, "法律禁止采集的信息", "The law forbids to collect this", "Do not send it; `policies/prohibited.toml` lists the items.";
    LINE_TOO_LARGE = "too-large", 0, "超过上限", "A value, the line or the person's records are beyond a limit", "The message gives the limit.";
}

/// What this code of a call means.
pub fn info(code: &str) -> Option<&'static CodeInfo> {
    CODES.iter().find(|info| info.code == code)
}

/// The page `docs/errors.md`, as this table has it.
pub fn page() -> String {
    let mut page = String::from(
        "# Errors\n\nEvery refusal is `application/problem+json` (RFC 9457): `type` (this page and the code), `title` (English), `title_zh`, \
         `status`, `detail`\n(what to do about this very call), `code` (stable: programs read this one), and where they help `field`, `line`, \
         `column`, `limit`, `incident`.\nNo refusal says anything about a person.\n\n## Calls\n",
    );
    let entry = |page: &mut String, info: &CodeInfo| {
        let status = if info.status == 0 { String::new() } else { format!(" · {}", info.status) };
        page.push_str(&format!(
            "\n### {}\n\n{}{status} · {}\n\n{}\n",
            info.code, info.title_en, info.title_zh, info.advice
        ));
    };
    for info in CODES {
        entry(&mut page, info);
    }
    page.push_str("\n## Lines of a feed\n\nThey stand in `rejected` of the answer, in FILE.rejects.ndjson and on standard error, with the line's number.\n");
    for info in LINE_CODES {
        entry(&mut page, info);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_said_once_and_whole() {
        for table in [CODES, LINE_CODES] {
            for info in table {
                assert_eq!(table.iter().filter(|i| i.code == info.code).count(), 1, "{}", info.code);
                assert!(info.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", info.code);
                assert!(
                    !info.title_zh.is_ascii() && info.title_en.is_ascii() && info.advice.ends_with('.'),
                    "{}",
                    info.code
                );
            }
        }
        assert!(CODES.iter().all(|i| (400..600).contains(&i.status)) && LINE_CODES.iter().all(|i| i.status == 0));
    }

    /// `JADEGATE_WRITE=1 cargo test the_page_of_errors` writes the page anew.
    #[test]
    fn the_page_of_errors_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md");
        if std::env::var_os("JADEGATE_WRITE").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(written == page(), "docs/errors.md is not what the table says: run this test with JADEGATE_WRITE=1");
    }
}
