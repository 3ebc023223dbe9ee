<%@ page contentType="text/html; charset=UTF-8" trimDirectiveWhitespaces="true" %><%--
  One page: it counts clicks in the session, so that a lost session shows. RELEASE and BACKEND come from the environment.
--%><%
  String release = System.getenv().getOrDefault("RELEASE", "?"), backend = System.getenv().getOrDefault("BACKEND", "?");
  Integer clicks = (Integer) session.getAttribute("clicks");
  clicks = clicks == null ? 1 : clicks + 1;
  session.setAttribute("clicks", clicks);
%><!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="UTF-8">
  <meta name="viewport" content="width=device-width">
  <title>Shop <%= release %></title>
  <style>
    body { font: 1.1rem/1.6 system-ui, sans-serif; max-width: 32rem; margin: 4rem auto; padding: 0 1rem }
    strong { font-size: 2rem }
  </style>
</head>
<body>
  <h1>The shop, release <%= release %></h1>
  <p>Click number <strong><%= clicks %></strong> in this session, on backend <%= backend %>.</p>
  <p><a href="./">Click on</a> · <a href="logout.jsp">Log out</a></p>
  <!-- release=<%= release %> backend=<%= backend %> counter=<%= clicks %> -->
</body>
</html>
