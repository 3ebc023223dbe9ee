<%@ page contentType="text/plain" session="false" trimDirectiveWhitespaces="true" %><%--
  /health says 200, or 503 after /health/disable, until /health/enable: a soft stop that needs no command of tidegate
  (health: {path: /shop/health, drain: [503]}). The two are for operators on this machine, not for those who come through the proxy.
--%><%
  String order = request.getPathInfo();
  if (order != null) {
    boolean known = order.equals("/enable") || order.equals("/disable");
    if (!known || request.getHeader("X-Forwarded-For") != null) { response.sendError(404); return; }
    application.setAttribute("disabled", order.equals("/disable"));
  }
  boolean disabled = Boolean.TRUE.equals(application.getAttribute("disabled"));
  if (disabled && order == null) response.setStatus(503);
%><%= disabled ? "disabled" : "enabled" %>
