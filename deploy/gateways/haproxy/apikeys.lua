-- Asks apikeys about a request: lets it pass with the headers of its key, or answers it as
-- apikeys says. Whatever goes wrong refuses it.

local gate = "http://127.0.0.1:9191/forward_auth"
local timeout = 5000 -- milliseconds

-- What apikeys needs of the request: where keys stand (credential_headers), what program
-- sends it, and what asks to be taken for another method.
local asked = {
  "authorization", "x-api-key", "user-agent", "x-http-method-override", "x-http-method", "x-method-override",
}
-- What is told of the key, for your API, and what a refusal tells the client.
local identity = { "x-api-key-id", "x-organization-id", "x-api-key-scopes", "x-api-key-owner", "x-api-key-label" }
local told = {
  "content-type", "cache-control", "www-authenticate", "retry-after", "x-api-key-error",
  "ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset",
}

-- lines returns the lines of a header, which HAProxy counts from 0.
local function lines(headers, name)
  local all = {}
  local found = headers[name]
  if found then
    local i = 0
    while found[i] ~= nil do
      all[#all + 1] = found[i]
      i = i + 1
    end
  end
  return all
end

local function first(headers, name)
  return lines(headers, name)[1] or ""
end

local function refuse(txn, status, headers, body)
  local reply = txn:reply { status = status }
  for _, h in ipairs(headers) do
    reply:add_header(h[1], h[2])
  end
  reply:set_body(body)
  txn:done(reply)
end

local function ask(txn, query)
  local from = txn.http:req_get_headers()
  local headers = {
    ["x-forwarded-method"] = { txn.sf:method() },
    ["x-forwarded-uri"] = { txn.sf:url() },
    ["x-forwarded-for"] = { txn.sf:src() },
  }
  for _, name in ipairs(asked) do
    local all = lines(from, name)
    if #all > 0 then headers[name] = all end
  end
  local url = gate
  if query ~= "-" then url = url .. "?" .. query end
  return core.httpclient():get { url = url, headers = headers, timeout = timeout }
end

core.register_action("apikeys", { "http-req" }, function(txn, query)
  for _, name in ipairs(identity) do
    txn.http:req_del_header(name)
  end
  txn.http:req_del_header("x-api-key-error")
  local ok, answer = pcall(ask, txn, query)
  if not ok or answer == nil or answer.status == nil or answer.status == 0 then
    refuse(txn, 503, { { "content-type", "application/json" }, { "retry-after", "1" } },
      '{"error": "The API key could not be checked; try again."}')
    return
  end
  if answer.status ~= 200 then
    local headers = {}
    for _, name in ipairs(told) do
      local value = first(answer.headers, name)
      if value ~= "" then headers[#headers + 1] = { name, value } end
    end
    refuse(txn, answer.status, headers, answer.body or "")
    return
  end
  for _, name in ipairs(identity) do
    local value = first(answer.headers, name)
    if value ~= "" then txn.http:req_set_header(name, value) end
  end
  for variable, name in pairs({ ["txn.ratelimit"] = "ratelimit", ["txn.ratelimit_policy"] = "ratelimit-policy" }) do
    local value = first(answer.headers, name)
    if value ~= "" then txn:set_var(variable, value) end
  end
  txn:set_var("txn.apikeys", "passed")
end, 1)
