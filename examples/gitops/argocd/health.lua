-- Health of a TTSService for Argo CD: resource.customizations.health.ttsfleet.dev_TTSService in argocd-cm.
--
-- It follows kstatus, which Flux and `kubectl` plugins use, so that all of them agree: InProgress is Progressing,
-- Failed is Degraded, Current is Healthy, or Suspended when spec.suspend or a pause keeps the fleet from acting.
-- A condition Degraded (fewer replicas than wanted, a foreign scaler) alone leaves it Healthy: what is still being
-- worked on is Reconciling, what has failed is Stalled.

local function condition(status, kind)
  for _, one in ipairs(status.conditions or {}) do
    if one.type == kind then
      return one
    end
  end
  return nil
end

local function health(status, one)
  local message = one.reason or ""
  if one.message ~= nil and one.message ~= "" then
    message = message .. ": " .. one.message
  end
  return { status = status, message = message }
end

local status = obj.status
if status == nil or status.conditions == nil then
  return { status = "Progressing", message = "Waiting for the operator" }
end

local generation = obj.metadata.generation
if generation ~= nil and status.observedGeneration ~= nil and status.observedGeneration ~= generation then
  return { status = "Progressing", message = "Waiting for the operator to see the newest spec" }
end

local reconciling = condition(status, "Reconciling")
if reconciling ~= nil and reconciling.status == "True" then
  return health("Progressing", reconciling)
end

local stalled = condition(status, "Stalled")
if stalled ~= nil and stalled.status == "True" then
  return health("Degraded", stalled)
end

local ready = condition(status, "Ready")
if ready == nil or ready.status ~= "True" then
  return health("Progressing", ready or { reason = "Waiting for the condition Ready" })
end

if ready.reason == "Suspended" or ready.reason == "Paused" then
  return health("Suspended", ready)
end

local degraded = condition(status, "Degraded")
if degraded ~= nil and degraded.status == "True" then
  return health("Healthy", degraded)
end
return health("Healthy", ready)
